// What a GGUF file says, checked as far as llama.cpp asserts it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
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

    // Nothing if there is no such text.
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
            refuse("token " + std::to_string(i) + " of its vocabulary is there twice");
        }
    }
}

// Refuses a vocabulary of another kind than `tokenizer.ggml.model` says, as far as its other parts tell.
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

// Rotary position embeddings turn pairs of numbers.
void check_rope_dimensions(const Metadata & metadata) {
    const double n = metadata.number("rope.dimension_count").value_or(0);
    if (std::fmod(n, 2) != 0) {
        refuse(metadata.architecture() + ".rope.dimension_count is " + std::to_string(static_cast<int64_t>(n)) +
               ", and has to be even");
    }
}

// FNV-1a
uint64_t hash(uint64_t value, const void * data, size_t size) {
    const auto * bytes = static_cast<const unsigned char *>(data);
    for (size_t i = 0; i < size; ++i) {
        value = (value ^ bytes[i]) * 0x100000001b3ULL;
    }
    return value;
}

// Looks at the middle of every tensor of one file: its beginning may be padding in many models.
uint64_t hash_tensors(uint64_t value, const gguf_context * gguf, const std::string & path) {
    constexpr size_t kSample = 64;
    std::ifstream file(path, std::ios::binary);
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf); ++i) {
        const char * name = gguf_get_tensor_name(gguf, i);
        const int32_t type = gguf_get_tensor_type(gguf, i);
        const size_t size = gguf_get_tensor_size(gguf, i), n = std::min(size, kSample);
        value = hash(value, name, std::strlen(name));
        value = hash(value, &type, sizeof type);
        value = hash(value, gguf_get_tensor_ne(gguf, i), GGML_MAX_DIMS * sizeof(int64_t));
        char sample[kSample] = {};
        file.seekg(
            static_cast<std::streamoff>(gguf_get_data_offset(gguf) + gguf_get_tensor_offset(gguf, i) + (size - n) / 2));
        file.read(sample, static_cast<std::streamsize>(n));
        value = hash(value, sample, n);
    }
    return value;
}

using GgufPtr = std::unique_ptr<gguf_context, decltype(&gguf_free)>;

GgufPtr open_gguf(const std::string & path) {
    return GgufPtr(gguf_init_from_file(path.c_str(), {true, nullptr}), gguf_free);
}

} // namespace

uint64_t hash_weights(const std::string & path) {
    constexpr uint64_t kStart = 0xcbf29ce484222325ULL;
    const GgufPtr first = open_gguf(path);
    if (!first) {
        return kStart;
    }
    const int64_t id = gguf_find_key(first.get(), "split.count");
    const int n_files = id >= 0 && gguf_get_kv_type(first.get(), id) == GGUF_TYPE_UINT16
                            ? std::max<int>(gguf_get_val_u16(first.get(), id), 1)
                            : 1;
    uint64_t value = hash_tensors(kStart, first.get(), path);
    char prefix[4096], other[4096];
    if (n_files == 1 || llama_split_prefix(prefix, sizeof prefix, path.c_str(), 0, n_files) <= 0) {
        return value;
    }
    for (int i = 1; i < n_files; ++i) {
        llama_split_path(other, sizeof other, prefix, i, n_files);
        if (const GgufPtr file = open_gguf(other)) {
            value = hash_tensors(value, file.get(), other);
        }
    }
    return value;
}

void check_vocabulary(const llama_vocab * vocab) {
    const auto need = [](bool needed, llama_token token, const char * what) {
        if (needed && token == LLAMA_TOKEN_NULL) {
            refuse(std::string("its vocabulary has no ") + what + " token, which it puts into every prompt");
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
        return; // llama.cpp says why
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
