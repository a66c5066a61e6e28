// What llama.h does not tell of a loaded model.
#pragma once

#include <cstdint>

#include "llama.h"

/// How many positions the model has learned embeddings of; 0 where positions are computed (RoPE, ALiBi, a recurrent state).
int64_t n_learned_positions(const llama_model * model);

/// Whether it heeds LlamaContextParams.n_rs_seq.
bool rolls_states_back(const llama_model * model);

/// What a context with LLAMA_POOLING_TYPE_UNSPECIFIED pools by.
enum llama_pooling_type default_pooling(const llama_model * model);
