// What a GGUF file says, checked as far as llama.cpp asserts it.
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "gguf.h"
#include "model.hpp"

namespace {

constexpr int64_t kMaxLayers = 512, kMaxExperts = 1024; // LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS

// Reads values as llama.cpp will: an override comes before the file.
class Metadata {
  public:
    Metadata(const gguf_context * file, const llama_model_kv_override * overrides) : file_(file), overrides_(overrides) {}

    std::optional<double> number(const std::string & name) const {
        const std::string key = architecture() + "." + name;
        for (const auto * item = overrides_; item && item->key[0]; ++item) {
            if (key == item->key && item->tag == LLAMA_KV_OVERRIDE_TYPE_INT) {
                return static_cast<double>(item->val_i64);
            }
            if (key == item->key && item->tag == LLAMA_KV_OVERRIDE_TYPE_FLOAT) {
                return item->val_f64;
            }
        }
        const int64_t id = gguf_find_key(file_, key.c_str());
        if (id >= 0 && gguf_get_kv_type(file_, id) == GGUF_TYPE_UINT32) {
            return gguf_get_val_u32(file_, id);
        }
        if (id >= 0 && gguf_get_kv_type(file_, id) == GGUF_TYPE_FLOAT32) {
            return gguf_get_val_f32(file_, id);
        }
        return std::nullopt;
    }

    std::string architecture() const {
        const int64_t id = gguf_find_key(file_, "general.architecture");
        return id >= 0 && gguf_get_kv_type(file_, id) == GGUF_TYPE_STRING ? gguf_get_val_str(file_, id) : "";
    }

  private:
    const gguf_context * file_;
    const llama_model_kv_override * overrides_;
};

void refuse(const std::string & why) { throw std::runtime_error("the model file is damaged or not supported: " + why); }

void check_tokens(const gguf_context * file) {
    const int64_t id = gguf_find_key(file, "tokenizer.ggml.tokens");
    if (id < 0 || gguf_get_kv_type(file, id) != GGUF_TYPE_ARRAY || gguf_get_arr_type(file, id) != GGUF_TYPE_STRING) {
        return;
    }
    const size_t n = gguf_get_arr_n(file, id);
    std::unordered_set<std::string_view> seen(n);
    for (size_t i = 0; i < n; ++i) {
        const std::string_view token = gguf_get_arr_str(file, id, i);
        if (!token.empty() && !seen.insert(token).second) {
            refuse("token " + std::to_string(i) + " of its vocabulary is there twice");
        }
    }
}

} // namespace

void check_metadata(const std::string & path, const llama_model_params & params) {
    const std::unique_ptr<gguf_context, decltype(&gguf_free)> file(gguf_init_from_file(path.c_str(), {true, nullptr}),
                                                                   gguf_free);
    if (!file) {
        return; // llama.cpp says why
    }
    check_tokens(file.get());
    if (params.vocab_only) {
        return;
    }
    const Metadata metadata(file.get(), params.kv_overrides);
    const auto check_range = [&](const char * name, double missing, double low, double high) {
        const double value = metadata.number(name).value_or(missing);
        if (!(value >= low && value <= high)) {
            refuse(std::string(name) + " is " + std::to_string(value));
        }
        return value;
    };
    check_range("block_count", 1, 1, kMaxLayers);
    check_range("attention.layer_norm_epsilon", 0, 0, 1);
    check_range("attention.layer_norm_rms_epsilon", 0, 0, 1);
    check_range("attention.group_norm_epsilon", 0, 0, 1);
    const double n_experts = check_range("expert_count", 0, 0, kMaxExperts);
    check_range("expert_used_count", 0, n_experts > 0 ? 1 : 0, n_experts);
    check_range("expert_group_count", 0, 0, n_experts > 0 ? n_experts - 1 : 0);
}
