// Limits on the parameters of a context, outside of which llama.cpp would abort the process.
#pragma once

#include <cstdint>

#include "llama.h"

/// ValueError unless `n_threads` is a number of threads that ggml takes; `name` is the argument's.
void check_n_threads(const char * name, int32_t n_threads);

/// Throws std::runtime_error unless so many threads can be started. ggml would abort.
void check_threads_available(int32_t n_threads, int32_t n_threads_batch);

/// ValueError for embeddings with a space for outputs of fewer than `n_ubatch` tokens.
void check_embeddings(bool embeddings, int64_t n_outputs_max, int64_t n_ubatch);

/// ValueError unless ggml takes these parameters of a thread pool (ggml_threadpool_params).
void check_threadpool(int poll, int prio);

/// Whether a token attends to earlier ones only, in a context of a model that does so `by_default`.
bool attends_causally(const llama_context_params & params, bool by_default);

/// Throws for parameters that llama.cpp would answer with an abort of the process. `causal`: as for attends_causally().
void check_context_params(const llama_context_params & params, const llama_model * model, bool causal);

/// MemoryError for a KV cache larger than the memory of the machine and its GPUs. To be called with the GIL.
void check_context_memory(const llama_context_params & params, const llama_model * model);
