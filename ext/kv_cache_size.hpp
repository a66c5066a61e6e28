// What the memory of a context takes: keys and values, sliding windows, recurrent states.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "llama.h"

/// Bytes of the memory of a context with these parameters, by the name of the device that they are on, at most INT64_MAX;
/// empty for a model without a memory. Nothing for the few architectures with a memory of their own kind.
std::optional<std::map<std::string, int64_t>> kv_cache_bytes(const llama_model * model,
                                                             const llama_context_params & params);
