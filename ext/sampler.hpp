// Choosing the next token from logits.
#pragma once

#include <memory>
#include <vector>

#include "guard.hpp"
#include "model.hpp"

/// Owns a llama_sampler, alone or a chain.
struct SamplerHandle : Guarded {
    explicit SamplerHandle(llama_sampler * sampler) : sampler(sampler) {}
    ~SamplerHandle();

    llama_sampler * sampler;                          // null once it belongs to a chain
    std::vector<std::shared_ptr<ModelHandle>> models; // whose vocabulary it refers to
    int32_t n_vocab = 0;                              // vocabulary size it was made for, 0 for any
    bool in_graph = false;                            // a context runs it: the context must not outlive it, nor may it change
    std::vector<llama_token_data> candidates;         // reused from token to token
};

/// The Python class LlamaSampler.
struct LlamaSampler {
    std::shared_ptr<SamplerHandle> handle;
};

/// Samples and accepts a token from an output of the last decode. To be called below the context's lock, without the GIL.
llama_token sample(SamplerHandle & handle, llama_context * context, int32_t index);
