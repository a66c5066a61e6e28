// Loading a model from a file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model.hpp"
#include "params.hpp"

/// llama_model_params, with the arrays that its pointers refer to.
class ModelParams {
  public:
    /// ValueError for devices or buffers that do not exist, and for values that are too long.
    explicit ModelParams(const LlamaModelParams & source);
    ModelParams(const ModelParams &) = delete;
    ModelParams & operator=(const ModelParams &) = delete;

    llama_model_params & get() { return params_; }

  private:
    void add_buffers(const std::vector<std::pair<std::string, std::string>> & overrides);

    llama_model_params params_;
    std::vector<ggml_backend_dev_t> devices_;
    std::vector<llama_model_tensor_buft_override> buffers_;
    std::vector<float> split_;
    std::vector<llama_model_kv_override> overrides_;
};

/// Loads a GGUF file (llama_model_load_from_file). To be called with the GIL, which it releases meanwhile. Throws OSError,
/// ValueError or RuntimeError, as LlamaModel.__init__ documents.
std::shared_ptr<ModelHandle> load_model(const std::string & path, const LlamaModelParams & source);
