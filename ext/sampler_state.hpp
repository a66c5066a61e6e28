// Samplers of cyllama's own: what they have in common.
#pragma once

#include <memory>
#include <utility>

#include "llama.h"

/// Makes a sampler that owns a state, which the functions of `interface` find in its `ctx`; `free` has to delete it.
template <class State> llama_sampler * make_sampler(llama_sampler_i & interface, State && state) {
    auto owned = std::make_unique<State>(std::move(state));
    llama_sampler * sampler = llama_sampler_init(&interface, owned.get());
    owned.release();
    return sampler;
}
