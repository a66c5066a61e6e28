#include "metadata.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <unordered_set>

#include "gguf_file.hpp"

namespace {

constexpr int64_t kMaxLayers = 512, kMaxExperts = 1024; // LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS

// Reads values as llama.cpp does: an override replaces the value of the file.
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

    // Empty if there is no such text.
    std::string text(const std::string & key) const {
        for (const auto * item = overrides_; item && item->key[0]; ++item) {
            if (key == item->key && item->tag == LLAMA_KV_OVERRIDE_TYPE_STR) {
                return item->val_str;
            }
        }
        const int64_t id = gguf_find_key(file_, key.c_str());
        return id >= 0 && gguf_get_kv_type(file_, id) == GGUF_TYPE_STRING ? gguf_get_val_str(file_, id) : "";
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
            refuse("token " + std::to_string(i) + " of its vocabulary occurs twice");
        }
    }
}

// Refuses a vocabulary whose other parts show that `tokenizer.ggml.model` is wrong.
void check_kind_of_vocabulary(const gguf_context * file, const std::string & kind) {
    constexpr int32_t kByte = 6; // LLAMA_TOKEN_TYPE_BYTE
    bool has_bytes = false;
    const int64_t id = gguf_find_key(file, "tokenizer.ggml.token_type");
    if (id >= 0 && gguf_get_kv_type(file, id) == GGUF_TYPE_ARRAY && gguf_get_arr_type(file, id) == GGUF_TYPE_INT32) {
        const auto * types = static_cast<const int32_t *>(gguf_get_arr_data(file, id));
        const int32_t * end = types + gguf_get_arr_n(file, id);
        has_bytes = std::find(types, end, kByte) != end;
    }
    const bool has_merges = gguf_find_key(file, "tokenizer.ggml.merges") >= 0;
    if (kind == "bert" && has_bytes) {
        refuse("tokenizer.ggml.model is \"bert\" (WordPiece), but the vocabulary has tokens of single bytes, as one of "
               "SentencePiece (\"llama\") has");
    }
    const char * others[] = {"bert", "llama", "t5", "rwkv", "plamo2"};
    if (has_merges && !has_bytes && std::find(std::begin(others), std::end(others), kind) != std::end(others)) {
        refuse("tokenizer.ggml.model is \"" + kind + "\", but the vocabulary has merges, as one of BPE (\"gpt2\") has");
    }
}

void check_rope_scaling(const Metadata & metadata) {
    const std::string key = metadata.architecture() + ".rope.scaling.type", type = metadata.text(key);
    const char * known[] = {"none", "linear", "yarn", "longrope"};
    if (!type.empty() && std::find(std::begin(known), std::end(known), type) == std::end(known)) {
        refuse(key + " is \"" + type + "\", and llama.cpp knows none, linear, yarn and longrope");
    }
}

// Rotary position embeddings rotate pairs of numbers.
void check_rope_dimensions(const Metadata & metadata) {
    const double n = metadata.number("rope.dimension_count").value_or(0);
    if (std::fmod(n, 2) != 0) {
        refuse(metadata.architecture() + ".rope.dimension_count is " + std::to_string(static_cast<int64_t>(n)) +
               ", and has to be even");
    }
}

} // namespace

void check_vocabulary(const llama_vocab * vocab) {
    const auto need = [](bool needed, llama_token token, const char * what) {
        if (needed && token == LLAMA_TOKEN_NULL) {
            refuse(std::string("its vocabulary has no ") + what + " token, which it adds to every prompt");
        }
    };
    const enum llama_vocab_type type = llama_vocab_type(vocab);
    const bool word_piece = type == LLAMA_VOCAB_TYPE_WPM;
    const bool adds = type == LLAMA_VOCAB_TYPE_SPM || type == LLAMA_VOCAB_TYPE_BPE || type == LLAMA_VOCAB_TYPE_UGM;
    need(word_piece || (adds && llama_vocab_get_add_bos(vocab)), llama_vocab_bos(vocab), "beginning-of-sequence");
    need(word_piece, llama_vocab_sep(vocab), "separator");
    need(adds && llama_vocab_get_add_eos(vocab), llama_vocab_eos(vocab), "end-of-sequence");
}

void check_metadata(const std::string & path, const llama_model_params & params) {
    const GgufPtr file = open_gguf(path);
    if (!file) {
        return; // llama.cpp refuses the file, with the reason
    }
    const Metadata metadata(file.get(), params.kv_overrides);
    check_tokens(file.get());
    check_kind_of_vocabulary(file.get(), metadata.text("tokenizer.ggml.model"));
    if (params.vocab_only) {
        return;
    }
    check_rope_scaling(metadata);
    check_rope_dimensions(metadata);
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
