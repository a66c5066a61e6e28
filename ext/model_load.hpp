// Loading a model from a file.
#pragma once

#include <memory>
#include <string>

#include "model.hpp"
#include "params.hpp"

/// Loads a GGUF file (llama_model_load_from_file). To be called with the GIL, which it releases meanwhile. Throws OSError,
/// ValueError or RuntimeError, as LlamaModel.__init__ documents.
std::shared_ptr<ModelHandle> load_model(const std::string & path, const LlamaModelParams & source);
