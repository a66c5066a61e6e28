// Which tokens of the vocabulary a chain of samplers has to look at.
#pragma once

#include <cstdint>
#include <vector>

#include "llama.h"

/// What a sampler does to the logits, as far as it limits which tokens can be selected. The default is an unknown effect.
struct SamplerEffect {
    bool known = false;
    int32_t n_kept = 0;              // it keeps only so many of the largest logits; 0: all
    int32_t n_lowered = 0;           // most tokens that it makes less likely
    std::vector<llama_token> raised; // tokens that it makes more likely
};

/// The tokens that a chain needs: all of them, unless a sampler keeps few and the samplers before it change few.
class Candidates {
  public:
    /// Adds the next sampler of the chain. `leading_grammar`: it is a grammar, and the first sampler.
    void add(const SamplerEffect & effect, bool leading_grammar);

    /// Writes the tokens, with their logits and sorted by id, that the chain may select from its sampler `first` on.
    /// `logits` has shape (n_vocab,).
    void collect(const float * logits, int32_t n_vocab, int first, std::vector<llama_token_data> & tokens) const;

  private:
    bool collect_largest(const float * logits, int32_t n_vocab, std::vector<llama_token_data> & tokens) const;

    bool open_ = true;      // all effects so far are known, and no sampler keeps only a few tokens
    int first_ = 0;         // the sampler of the chain from which on n_largest_ holds
    int64_t n_lowered_ = 0; // most tokens that the samplers so far make less likely
    int64_t n_largest_ = 0; // number of largest logits that are enough; 0 if all are needed
    std::vector<llama_token> raised_;
};

/// Index of the first of the largest values, which is never a NaN; -1 if all are NaN.
int32_t arg_max(const float * values, int32_t n);
