// A sampler that sometimes excludes the most likely tokens.
#pragma once

#include <cstdint>

#include "llama.h"

/// Makes a sampler that does what llama.cpp's `xtc` does, at the same tokens with the same seed, but does not sort the
/// candidates: with probability `p`, it excludes those whose probability is at least `threshold`, except the least likely one
/// of them.
llama_sampler * make_xtc_sampler(float p, float threshold, uint32_t seed);
