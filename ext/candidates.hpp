// Which tokens of the vocabulary a chain of samplers has to look at.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "llama.h"
#include "truncation.hpp"

/// What a sampler does to the logits, as far as it limits which tokens can be selected. The default is an unknown effect.
struct SamplerEffect {
    bool known = false;
    int32_t n_kept = 0;              // it keeps only so many of the largest logits; 0: all
    int32_t n_lowered = 0;           // most tokens that it makes less likely
    std::vector<llama_token> raised; // tokens that it makes more likely

    bool simple = false; // the next two are all that it does
    std::vector<std::pair<llama_token, float>> biases;
    float divisor = 1.0f;
    Cut cut;
};

/// Where a chain begins with the candidates that were collected.
struct Start {
    int sampler = 0;
    bool sorted = false; // whether the candidates are in descending order of their logits
};

/// The tokens that a chain needs: all of them, unless a sampler keeps few and the samplers before it change few.
class Candidates {
  public:
    /// Adds the next sampler of the chain. `leading_grammar`: it is a grammar, and the first sampler.
    void add(const SamplerEffect & effect, bool leading_grammar);

    /// Writes the tokens, with their logits, that the chain may select from its sampler `first` on; those before the
    /// sampler that is returned have been applied. `logits` has shape (n_vocab,).
    Start collect(const float * logits, int32_t n_vocab, int first, std::vector<llama_token_data> & tokens);

    /// Does what sampler `index` of the chain does, where that is faster than to apply it; returns whether it did.
    bool apply(int index, llama_token_data_array & candidates);

  private:
    bool collect_largest(const float * logits, int32_t n_vocab, std::vector<llama_token_data> & tokens) const;
    bool collect_cut(const float * logits, int32_t n_vocab, std::vector<llama_token_data> & tokens);
    float least_ratio_after(size_t index) const;

    bool open_ = true;      // all effects so far are known, and no sampler keeps only a few tokens
    int first_ = 0;         // the sampler of the chain from which on n_largest_ holds
    int64_t n_lowered_ = 0; // most tokens that the samplers so far make less likely
    int64_t n_largest_ = 0; // number of largest logits that are enough; 0 if all are needed
    std::vector<llama_token> raised_;

    std::vector<Cut> cuts_;              // of each sampler
    std::vector<SamplerEffect> changes_; // of the simple samplers before the first cut
    bool simple_ = true;                 // all samplers so far are simple
    int cut_ = -1;                       // the first sampler with a cut, if all before it are simple
    Truncation truncation_;
    std::vector<float> changed_; // the logits after the changes
};

/// Index of the first of the largest values, which is never a NaN; -1 if all are NaN.
int32_t arg_max(const float * values, int32_t n);
