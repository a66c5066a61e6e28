#include "weights_hash.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>

#include "ggml.h"
#include "gguf_file.hpp"
#include "llama.h"

namespace {

// FNV-1a, continued from `value`.
uint64_t hash(uint64_t value, const void * data, size_t size) {
    const auto * bytes = static_cast<const unsigned char *>(data);
    for (size_t i = 0; i < size; ++i) {
        value = (value ^ bytes[i]) * 0x100000001b3ULL;
    }
    return value;
}

// Hashes the middle of every tensor of one file: the beginning may be padding, which is the same in many models.
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

} // namespace

uint64_t hash_weights(const std::string & path) {
    constexpr uint64_t kStart = 0xcbf29ce484222325ULL; // of FNV-1a
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
