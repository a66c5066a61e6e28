// Properties of models and contexts that llama.h does not tell.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

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

/// The device that a layer is computed on, and its weights are on. `il`: from 0 to n_layers(); the last one is the output.
ggml_backend_dev_t device_of_layer(const llama_model * model, int32_t il);

/// Layers of the model and the output, as n_gpu_layers counts them.
int32_t n_layers(const llama_model * model);

/// Bytes of the weights by the kind of buffer that they are in.
std::map<ggml_backend_buffer_type_t, size_t> weights_by_buffer(const llama_model * model);

/// Where the weights are that are mapped from the file and that every token reads: data and bytes, in the order of memory.
std::vector<std::pair<const char *, size_t>> mapped_weights(const llama_model * model);
