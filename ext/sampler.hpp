// A sampler of llama.cpp, alone or a chain of them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "candidates.hpp"
#include "llama.h"
#include "lock.hpp"
#include "model.hpp"

/// Owns a llama_sampler.
struct SamplerHandle : Guarded {
    explicit SamplerHandle(llama_sampler * sampler) : sampler(sampler) {}
    ~SamplerHandle();

    bool is_chain() const { return llama_sampler_chain_get(sampler, -1) != nullptr; }
    /// Throws std::runtime_error if the sampler belongs to a chain.
    void check_usable() const;
    /// ValueError if it was made for a vocabulary of another size.
    void check_vocab(int32_t other_n_vocab) const;
    /// Keeps the models open whose vocabulary it reads.
    std::vector<std::unique_ptr<ModelUse>> use_models() const;
    /// Calls `function` with every sampler of a chain, or with the sampler itself.
    template <class Function> void for_each(Function && function) const {
        if (!is_chain()) {
            function(sampler);
            return;
        }
        for (int i = 0; i < llama_sampler_chain_n(sampler); ++i) {
            function(llama_sampler_chain_get(sampler, i));
        }
    }

    llama_sampler * sampler;                          // null after it was added to a chain
    std::vector<std::shared_ptr<ModelHandle>> models; // whose vocabulary it reads
    int32_t n_vocab = 0;                              // vocabulary size that it was made for, 0 for any
    int32_t top_k = 0;                                // the smallest k of its top_k samplers, 0 without
    int32_t n_candidates = 0;                         // candidates that its top_k samplers would need in a graph
    bool in_graph = false;                    // a context runs it, or did: it must not change, nor be used elsewhere
    SamplerEffect effect;                     // on logits, if it is not a chain
    Candidates needed;                        // by a chain
    std::vector<llama_token_data> candidates; // reused from token to token
};

/// The Python class LlamaSampler.
struct LlamaSampler {
    std::shared_ptr<SamplerHandle> handle;
};

/// Takes over what a function of llama.cpp created. Throws std::runtime_error for null.
LlamaSampler own_sampler(llama_sampler * sampler);

using SamplerHandles = std::vector<std::shared_ptr<SamplerHandle>>;

/// Appends all of the samplers to a chain, which takes them over, or none if one cannot be added. To be called with the
/// GIL.
void add_to_chain(SamplerHandle & chain, const SamplerHandles & samplers);
