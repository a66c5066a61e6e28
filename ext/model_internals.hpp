// Properties of models and contexts that llama.h does not tell.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "llama.h"

/// How many positions the model has learned embeddings of; 0 where positions are computed (RoPE, ALiBi, a recurrent state).
int64_t n_learned_positions(const llama_model * model);

/// Whether the model uses LlamaContextParams.n_rs_seq.
bool rolls_states_back(const llama_model * model);

/// The pooling of a context with LLAMA_POOLING_TYPE_UNSPECIFIED.
enum llama_pooling_type default_pooling(const llama_model * model);

/// Nodes of the graph that a context has reserved memory for.
int n_graph_nodes(llama_context * context);

/// The most nodes of a graph of the context.
size_t most_graph_nodes(llama_context * context);

/// Bytes of a KV cache for `n_ctx` tokens. Nothing for a model whose memory is not simply keys and values of every layer
/// for every token (sliding windows, recurrent states, encoders).
std::optional<int64_t> kv_cache_bytes(const llama_model * model, int64_t n_ctx, enum ggml_type type_k,
                                      enum ggml_type type_v);
