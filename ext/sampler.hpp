// Choosing the next token from logits.
#pragma once

#include <memory>
#include <vector>

#include "candidates.hpp"
#include "guard.hpp"
#include "model.hpp"

struct ContextHandle;

/// Owns a llama_sampler, alone or a chain.
struct SamplerHandle : Guarded {
    explicit SamplerHandle(llama_sampler * sampler) : sampler(sampler) {}
    ~SamplerHandle();

    llama_sampler * sampler;                          // null once it belongs to a chain
    std::vector<std::shared_ptr<ModelHandle>> models; // whose vocabulary it refers to
    int32_t n_vocab = 0;                              // vocabulary size it was made for, 0 for any
    int32_t top_k = 0;                                // the smallest k of its top_k, 0 without
    int32_t n_candidates = 0;                         // how many of them its top_k would need in a graph
    bool in_graph = false;                            // a context runs it, or did: it must not change, nor serve elsewhere
    SamplerEffect effect;                             // on logits, if it is not a chain
    Candidates needed;                                // by a chain
    std::vector<llama_token_data> candidates;         // reused from token to token
};

/// The Python class LlamaSampler.
struct LlamaSampler {
    std::shared_ptr<SamplerHandle> handle;
};

/// Throws unless the sampler can run in the graph of a context with a vocabulary of that size.
void check_graph_sampler(const SamplerHandle & handle, int32_t n_vocab);

/// Samples and accepts a token from the output of token `index` of the last batch. To be called below the context's lock,
/// without the GIL.
llama_token sample(SamplerHandle & handle, const ContextHandle & context, int32_t index);
