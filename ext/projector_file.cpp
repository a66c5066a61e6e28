#include "projector_file.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <memory>

#include "ggml.h"
#include "gguf.h"

#include "gguf_file.hpp"

namespace {

// Limits of a number of the metadata, those included. All known projectors are far from the upper ones.
struct Limits {
    const char * key;
    uint32_t low, high;
    bool required;
};

constexpr std::array<Limits, 17> kLimits{{
    {"clip.vision.image_size", 1, 4096, true},
    {"clip.vision.patch_size", 1, 256, true},
    {"clip.vision.embedding_length", 1, 1 << 16, true},
    {"clip.vision.attention.head_count", 1, 1024, true},
    {"clip.vision.attention.head_count_kv", 1, 1024, false},
    {"clip.vision.attention.head_dim", 1, 4096, false},
    {"clip.vision.block_count", 0, 512, true},
    {"clip.vision.feed_forward_length", 0, 1 << 20, true},
    {"clip.vision.projection_dim", 0, 1 << 17, true},
    {"clip.vision.projector.scale_factor", 1, 64, false},
    {"clip.vision.spatial_merge_size", 1, 64, false},
    {"clip.vision.n_wa_pattern", 1, 512, false},
    {"clip.vision.preproc_image_size", 1, 1 << 14, false},
    {"clip.vision.image_min_pixels", 1, 1 << 26, false},
    {"clip.vision.image_max_pixels", 1, 1 << 26, false},
    {"clip.vision.preproc_min_tiles", 0, 256, false},
    {"clip.vision.preproc_max_tiles", 0, 256, false},
}};

constexpr uint32_t kMostPatches = 128; // in each direction; attention takes time by the fourth power of that

std::string problem_of_number(const gguf_context * file, const Limits & limits) {
    const int64_t id = gguf_find_key(file, limits.key);
    if (id < 0) {
        return limits.required ? std::string(limits.key) + " is missing" : "";
    }
    if (gguf_get_kv_type(file, id) != GGUF_TYPE_UINT32) {
        return std::string(limits.key) + " is not a number of type U32";
    }
    const uint32_t value = gguf_get_val_u32(file, id);
    if (value < limits.low || value > limits.high) {
        return std::string(limits.key) + " is " + std::to_string(value) + ", not from " + std::to_string(limits.low) +
               " to " + std::to_string(limits.high);
    }
    return "";
}

std::string text_of(const gguf_context * file, const char * key) {
    const int64_t id = gguf_find_key(file, key);
    return id >= 0 && gguf_get_kv_type(file, id) == GGUF_TYPE_STRING ? gguf_get_val_str(file, id) : "";
}

std::string problem_of_metadata(const gguf_context * file) {
    if (const std::string architecture = text_of(file, "general.architecture"); architecture != "clip") {
        return "it is a model of architecture \"" + architecture + "\", not a projector (\"clip\")";
    }
    const int64_t vision = gguf_find_key(file, "clip.has_vision_encoder");
    if (vision < 0 || gguf_get_kv_type(file, vision) != GGUF_TYPE_BOOL || !gguf_get_val_bool(file, vision)) {
        return "it has no vision encoder (clip.has_vision_encoder)";
    }
    for (const Limits & limits : kLimits) {
        if (const std::string problem = problem_of_number(file, limits); !problem.empty()) {
            return problem;
        }
    }
    const auto number = [&](const char * key) { return gguf_get_val_u32(file, gguf_find_key(file, key)); };
    if (number("clip.vision.patch_size") > number("clip.vision.image_size")) {
        return "clip.vision.patch_size is larger than clip.vision.image_size";
    }
    if (number("clip.vision.image_size") / number("clip.vision.patch_size") > kMostPatches) {
        return "clip.vision.image_size is more than " + std::to_string(kMostPatches) + " times clip.vision.patch_size";
    }
    return "";
}

bool is_usable(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 || type == GGML_TYPE_I32 ||
           ggml_is_quantized(type);
}

std::string problem_of_tensors(const gguf_context * file, const std::string & path) {
    std::ifstream stream(path, std::ios::binary | std::ios::ate);
    const std::streamoff end = stream.tellg(); // -1 if the file cannot be read
    const auto file_size = static_cast<size_t>(std::max<std::streamoff>(end, 0));
    for (int64_t i = 0; i < gguf_get_n_tensors(file); ++i) {
        const std::string name = gguf_get_tensor_name(file, i);
        const size_t begin = gguf_get_data_offset(file) + gguf_get_tensor_offset(file, i);
        const size_t size = gguf_get_tensor_size(file, i);
        if (begin > file_size || size > file_size - begin) {
            return "the file ends before its tensor " + name;
        }
        if (!is_usable(gguf_get_tensor_type(file, i))) {
            return name + " has a type that cannot be computed with";
        }
    }
    return "";
}

} // namespace

std::string problem_of_projector(const std::string & path) {
    const GgufPtr file = open_gguf(path);
    if (!file) {
        return "its header is damaged";
    }
    const std::string problem = problem_of_metadata(file.get());
    return problem.empty() ? problem_of_tensors(file.get(), path) : problem;
}
