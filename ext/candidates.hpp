// Which tokens of the vocabulary a chain of samplers has to look at.
#pragma once

#include <cstdint>
#include <vector>

#include "llama.h"

/// What a sampler does to the logits, as far as that tells which tokens can be selected. By default, anything.
struct SamplerEffect {
    bool known = false;
    int32_t n_kept = 0;              // it keeps so many of the largest, if not 0
    int32_t n_lowered = 0;           // it may make so many tokens less likely
    std::vector<llama_token> raised; // and these more likely
};

/// What the samplers of a chain need: all tokens, unless one of them keeps few and those before it change few.
class Candidates {
  public:
    /// Follows the chain by one sampler; `leading_grammar` if it is a grammar, and the chain's first sampler.
    void add(const SamplerEffect & effect, bool leading_grammar);

    /// Writes those tokens with their logits, by token id, that the chain may select from its sampler `first` on.
    void collect(const float * logits, int32_t n_vocab, int first, std::vector<llama_token_data> & tokens) const;

  private:
    bool collect_largest(const float * logits, int32_t n_vocab, std::vector<llama_token_data> & tokens) const;

    bool open_ = true;      // no sampler so far that keeps few, nor one that may do anything
    int first_ = 0;         // the sampler of the chain from which on this holds
    int64_t n_lowered_ = 0; // by the samplers so far
    int64_t n_largest_ = 0; // how many of the largest logits are enough, 0 if all are needed
    std::vector<llama_token> raised_;
};

/// The first index of the largest value; values that are no number are never it. -1 if there is none.
int32_t arg_max(const float * values, int32_t n);
