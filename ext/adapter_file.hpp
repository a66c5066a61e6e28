// The file of a LoRA adapter, checked before llama.cpp loads it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "ggml.h"
#include "gguf_file.hpp"
#include "llama.h"

/// What of an adapter's file is damaged or does not fit the model, as far as llama.cpp asserts it or computes nonsense.
class AdapterFile {
  public:
    AdapterFile(const std::string & path, const llama_model & model);

    /// Returns why the file cannot be loaded, or nothing. A file that cannot be read is for llama.cpp to explain. Reads all
    /// of the file: to be called without the GIL.
    std::string problem();

    /// Weights of the model that the adapter changes; known after problem().
    size_t n_weights() const { return pairs_.size(); }

  private:
    using Pair = std::pair<const ggml_tensor *, const ggml_tensor *>; // A and B

    std::string problem_of_metadata() const;
    std::string problem_of_tensors();
    std::string problem_of_pair(const std::string & name, const Pair & pair) const;
    std::string problem_of_shapes(const std::string & name, const Pair & pair, const ggml_tensor * weight) const;
    bool is_finite(const ggml_tensor * tensor) const;

    const std::string path_;
    const llama_model & model_;
    GgufPtr file_{nullptr, gguf_free};
    std::unique_ptr<ggml_context, decltype(&ggml_free)> tensors_{nullptr, ggml_free};
    std::map<std::string, Pair> pairs_; // by name of the model's weight
};
