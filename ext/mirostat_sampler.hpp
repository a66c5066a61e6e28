// Mirostat 1.0, also for few candidates.
#pragma once

#include <cstdint>

#include "llama.h"

/// Makes a sampler that does what llama.cpp's `mirostat` does, and selects the same tokens with the same seed, if every candidate
/// has a probability. Those that have none, as most under a grammar, are left out first: llama.cpp's divides by their
/// probabilities, and then always selects the most likely token.
llama_sampler * make_mirostat_sampler(int32_t n_vocab, uint32_t seed, float tau, float eta, int32_t m);

/// Returns the seed in use of such a sampler; LLAMA_DEFAULT_SEED for another one.
uint32_t mirostat_seed(const llama_sampler * sampler);
