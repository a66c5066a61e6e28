// The metadata of a GGUF file, checked as far as llama.cpp asserts it.
#pragma once

#include <string>

#include "llama.h"

/// Throws std::runtime_error where values of the file, or overrides of them in `params`, would make llama.cpp abort the
/// process. Does nothing for a file that cannot be read.
void check_metadata(const std::string & path, const llama_model_params & params);

/// Throws std::runtime_error for a vocabulary without the tokens that llama.cpp would add to a prompt.
void check_vocabulary(const llama_vocab * vocab);
