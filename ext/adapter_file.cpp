#include "adapter_file.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <vector>

#include "ggml-cpu.h"
#include "llama-model.h" // not of llama.cpp's public API: the tensors of a model

namespace {

constexpr const char * kSuffixA = ".lora_a";
constexpr const char * kSuffixB = ".lora_b";
constexpr const char * kEmbeddings = "token_embd.weight";

bool ends_with(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string shape(const ggml_tensor * tensor) {
    std::string text;
    for (int i = 0; i < ggml_n_dims(tensor); ++i) {
        text += (i ? "x" : "") + std::to_string(tensor->ne[i]);
    }
    return text;
}

// Whether ggml can multiply by a tensor of this type.
bool computes(const ggml_tensor * tensor) {
    const ggml_type_traits_cpu * traits = ggml_get_type_traits_cpu(tensor->type);
    return traits->vec_dot && (tensor->type == GGML_TYPE_F32 || ggml_get_type_traits(tensor->type)->to_float);
}

} // namespace

AdapterFile::AdapterFile(const std::string & path, const llama_model & model) : path_(path), model_(model) {
    ggml_context * tensors = nullptr;
    file_.reset(gguf_init_from_file(path.c_str(), {true, &tensors}));
    tensors_.reset(tensors);
}

std::string AdapterFile::problem() {
    if (!file_) {
        return "";
    }
    const std::string metadata = problem_of_metadata();
    return metadata.empty() ? problem_of_tensors() : metadata;
}

std::string AdapterFile::problem_of_metadata() const {
    const std::pair<const char *, std::string> expected[] = {
        {"general.type", "adapter"},
        {"adapter.type", "lora"},
        {"general.architecture", llm_arch_name(model_.arch)},
    };
    for (const auto & [key, value] : expected) {
        const int64_t id = gguf_find_key(file_.get(), key);
        const bool is_text = id >= 0 && gguf_get_kv_type(file_.get(), id) == GGUF_TYPE_STRING;
        const std::string found = is_text ? gguf_get_val_str(file_.get(), id) : "";
        if (found != value) {
            return std::string(key) + " is " + (is_text ? "\"" + found + "\"" : "missing") + ", not \"" + value + "\"";
        }
    }
    const int64_t alpha = gguf_find_key(file_.get(), "adapter.lora.alpha");
    if (alpha >= 0 && (gguf_get_kv_type(file_.get(), alpha) != GGUF_TYPE_FLOAT32 ||
                       !std::isfinite(gguf_get_val_f32(file_.get(), alpha)))) {
        return "adapter.lora.alpha is not a finite number of type F32";
    }
    return "";
}

std::string AdapterFile::problem_of_tensors() {
    std::ifstream file(path_, std::ios::binary | std::ios::ate);
    const std::streamoff end = file.tellg(); // -1 if the file cannot be read
    const auto file_size = static_cast<size_t>(std::max<std::streamoff>(end, 0));
    for (int64_t i = 0; i < gguf_get_n_tensors(file_.get()); ++i) {
        const std::string name = gguf_get_tensor_name(file_.get(), i);
        const size_t begin = gguf_get_data_offset(file_.get()) + gguf_get_tensor_offset(file_.get(), i);
        const size_t size = gguf_get_tensor_size(file_.get(), i);
        if (begin > file_size || size > file_size - begin) {
            return "the file ends before its tensor " + name;
        }
        const bool is_a = ends_with(name, kSuffixA), is_b = ends_with(name, kSuffixB);
        if (is_a || is_b) {
            Pair & pair = pairs_[name.substr(0, name.size() - std::strlen(kSuffixA))];
            (is_a ? pair.first : pair.second) = ggml_get_tensor(tensors_.get(), name.c_str());
        }
    }
    if (pairs_.empty()) {
        return "it has no tensors of an adapter";
    }
    for (const auto & [name, pair] : pairs_) {
        if (const std::string problem = problem_of_pair(name, pair); !problem.empty()) {
            return problem;
        }
    }
    return "";
}

std::string AdapterFile::problem_of_pair(const std::string & name, const Pair & pair) const {
    const auto [a, b] = pair;
    const ggml_tensor * weight = model_.get_tensor(name.c_str());
    if (!a || !b) {
        return name + (a ? kSuffixB : kSuffixA) + " is missing";
    }
    if (!weight || name.find(kSuffixA) != name.npos || name.find(kSuffixB) != name.npos) {
        return "the model has no tensor " + name + ": it was made for another one";
    }
    if (!computes(a) || !computes(b) || weight->type == GGML_TYPE_NVFP4) {
        return name + " has a type that cannot be computed with";
    }
    // Where the output is computed with the embeddings, llama.cpp would use their adapter there as well.
    if (ends_with(name, kEmbeddings) && (name != kEmbeddings || !model_.get_tensor("output.weight"))) {
        return "this model cannot have other " + name + ": they are used for more than the input";
    }
    const std::string problem = problem_of_shapes(name, pair, weight);
    if (problem.empty() && (!is_finite(a) || !is_finite(b))) {
        return name + " has values that are not finite numbers";
    }
    return problem;
}

std::string AdapterFile::problem_of_shapes(const std::string & name, const Pair & pair, const ggml_tensor * weight) const {
    const auto [a, b] = pair;
    const bool embeddings = ends_with(name, kEmbeddings);
    const int64_t rank = embeddings ? a->ne[0] : a->ne[1];
    const bool fits = embeddings ? weight->ne[0] == b->ne[1] && weight->ne[1] == a->ne[1] && b->ne[0] == rank
                                 : weight->ne[0] == a->ne[0] && weight->ne[1] == b->ne[1] && b->ne[0] == rank;
    const bool same_experts = a->ne[2] == weight->ne[2] && b->ne[2] == weight->ne[2];
    if (rank < 1 || !fits || !same_experts || a->ne[3] != 1 || b->ne[3] != 1) {
        return name + " is " + shape(weight) + " in the model, which " + shape(a) + " (A) and " + shape(b) +
               " (B) do not fit: it was made for another one";
    }
    return "";
}

// A NaN would spread to all that the KV cache holds.
bool AdapterFile::is_finite(const ggml_tensor * tensor) const {
    const int64_t id = gguf_find_tensor(file_.get(), tensor->name);
    std::vector<char> data(gguf_get_tensor_size(file_.get(), id));
    std::ifstream file(path_, std::ios::binary);
    file.seekg(static_cast<std::streamoff>(gguf_get_data_offset(file_.get()) + gguf_get_tensor_offset(file_.get(), id)));
    file.read(data.data(), static_cast<std::streamsize>(data.size()));
    if (!file) {
        return false;
    }
    const auto to_float = ggml_get_type_traits(tensor->type)->to_float;
    std::vector<float> values(static_cast<size_t>(tensor->ne[0]));
    for (int64_t row = 0; row < ggml_nrows(tensor); ++row) {
        const char * source = data.data() + row * static_cast<int64_t>(tensor->nb[1]);
        if (tensor->type == GGML_TYPE_F32) {
            std::memcpy(values.data(), source, values.size() * sizeof(float));
        } else {
            to_float(source, values.data(), tensor->ne[0]);
        }
        if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
            return false;
        }
    }
    return true;
}
