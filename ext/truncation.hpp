// Samplers that keep tokens by their probabilities, computed for a large vocabulary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "llama.h"

/// Which tokens a sampler keeps.
struct Cut {
    enum class Kind { kNone, kTopP, kMinP, kTypical, kTopNSigma };
    Kind kind = Kind::kNone; // kNone: llama.cpp's sampler has to decide
    float value = 0.0f;      // p, or n of top_n_sigma
};

/// Computes what llama.cpp's samplers keep, without sorting the whole vocabulary.
///
/// Sums of probabilities are exact to about 1e-6, where llama.cpp adds 32-bit numbers one after the other. So another token
/// is the last one only where its sum is that close to p.
class Truncation {
  public:
    /// Writes the tokens that `cut` keeps, in the order in which llama.cpp leaves them; those with equal logits by id.
    ///
    /// Args:
    ///     least_ratio: The p of a min_p sampler that comes next: what it drops may be left out. 0 without one.
    ///     logits: Shape (n,); the id of a token is its index.
    ///     kept: The tokens, with their logits.
    ///
    /// Returns:
    ///     Whether that was possible: not if a logit is NaN, or the largest one not finite.
    bool apply(const Cut & cut, float least_ratio, const float * logits, int32_t n, std::vector<llama_token_data> & kept);

    /// Does the same to candidates that samplers have changed, unless they are few or sorted.
    bool apply(const Cut & cut, float least_ratio, llama_token_data_array & candidates);

    /// Returns the smallest logit of a token whose probability among the candidates is `p` or more; NaN if a logit is NaN, or
    /// the largest one not finite.
    float least_logit(float p, const llama_token_data_array & candidates);

    /// Whether the kept tokens are in descending order of their logits.
    static bool sorts(const Cut & cut) { return cut.kind == Cut::Kind::kTopP; }

  private:
    /// Tokens in descending order of their scores, from the largest one on, until their weights exceed `target`.
    struct Wanted {
        const float * scores;
        float largest;
        float least;   // tokens with smaller scores may be left out
        double target; // the sum of weights
        bool beyond;   // the sum has to exceed the target; otherwise reaching it is enough
    };

    void copy_logits(const llama_token_data_array & candidates);
    void weigh(const float * logits, int32_t n, float max);
    float threshold(const Wanted & wanted, int32_t n) const;
    void keep_first(const Wanted & wanted, const float * logits, int32_t n, std::vector<llama_token_data> & kept);

    // Reused from token to token.
    std::vector<float> logits_, weights_, scores_; // weights: probabilities relative to the largest
    std::vector<uint64_t> order_, sorted_;
    std::vector<llama_token_data> kept_;
    double weight_ = 0.0, moment_ = 0.0; // sums: of weights, and of weights times the distance to the largest logit
};
