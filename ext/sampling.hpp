// Choosing the next token from the outputs of a context.
#pragma once

#include "context.hpp"
#include "sampler.hpp"

/// Samples and accepts a token from the output of token `index` of the last batch. To be called with the context's lock
/// held, without the GIL.
llama_token sample(SamplerHandle & handle, const ContextHandle & context, int32_t index);
