// The header of a GGUF file: its metadata and a list of its tensors.
#pragma once

#include <memory>
#include <string>

#include "gguf.h"

using GgufPtr = std::unique_ptr<gguf_context, decltype(&gguf_free)>;

/// Reads the header of a file; null if it is not valid.
inline GgufPtr open_gguf(const std::string & path) {
    return GgufPtr(gguf_init_from_file(path.c_str(), {true, nullptr}), gguf_free);
}
