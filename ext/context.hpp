// A context: the KV cache, the outputs of the last batch and the threads that compute them.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "adapter.hpp"
#include "batch.hpp"
#include "guard.hpp"
#include "model.hpp"
#include "params.hpp"

struct SamplerHandle;
using GraphSamplers = std::map<llama_seq_id, std::shared_ptr<SamplerHandle>>;

/// Owns a llama_context and its thread pools. Every use of `context` happens below the lock.
struct ContextHandle : Guarded {
    ContextHandle(std::shared_ptr<ModelHandle> model, llama_context * context, const LlamaContextParams & params,
                  std::shared_ptr<ContextHandle> other, GraphSamplers samplers);
    ~ContextHandle();

    /// Takes the thread pools away from llama.cpp: at once if it never computed with them, else after the next computation.
    void retire_threadpools();
    /// To be called after a computation with the present thread pools.
    void threadpools_were_used();
    /// Frees everything. To be called below the lock, or when nobody else can hold it.
    void free();

    llama_context * context;
    const std::shared_ptr<ModelHandle> model;
    const std::shared_ptr<ContextHandle> other; // whose memory this one reads
    const GraphSamplers samplers;               // run in the graph
    ContextAdapters adapters;
    ggml_threadpool_t threadpool = nullptr;
    ggml_threadpool_t threadpool_batch = nullptr;
    /// Replaced ones, which llama.cpp's backend refers to until it computes with their successors.
    std::vector<ggml_threadpool_t> old_threadpools;
    bool threadpools_used = false;
    int threadpool_poll;
    int threadpool_prio;
    std::atomic<bool> abort{false};
    bool has_encoder, embeddings, causal, kv_unified, can_shift;
    bool encoded = false;
    int64_t n_positions; // that the model has learned embeddings of, 0 for any number
    int32_t n_vocab, n_seq_max, n_outputs_max;
    /// For every token of the last batch: kNoOutput, kLogits, or the sequence whose sampler in the graph took the logits.
    std::vector<int16_t> outputs;
    static constexpr int16_t kNoOutput = -2, kLogits = -1;
    PyObject * on_abort = nullptr; // borrowed from the LlamaContext, which outlives every decode
    PyObject * on_eval = nullptr;
    std::optional<nb::python_error> callback_error;
    /// Why the context cannot be used any more, if a check of llama.cpp failed in the middle of its work.
    std::string failed_check;
};

/// The Python class LlamaContext.
struct LlamaContext {
    std::shared_ptr<ContextHandle> handle;
    nb::object params; // keeps callbacks, samplers and the other context alive
};

/// A context locked for the length of a scope; throws if it is closed.
class ContextUse {
  public:
    explicit ContextUse(const LlamaContext & context);
    llama_context * get() const { return handle_->context; }
    ContextHandle * operator->() const { return handle_.get(); }
    ContextHandle & operator*() const { return *handle_; }
    const std::shared_ptr<ContextHandle> & handle() const { return handle_; }

    void check_sequence(llama_seq_id seq_id) const;
    /// Index in the last batch of token `index`, or of the -index-th last output; throws if that token has none.
    int32_t check_output(int32_t index) const;

  private:
    std::shared_ptr<ContextHandle> handle_; // declared first: it must outlive the guards
    std::optional<Guard> other_guard_;
    Guard guard_;
};

/// Attaches new thread pools of n_threads and n_threads_batch threads.
void attach_threadpools(ContextHandle & handle, int32_t n_threads, int32_t n_threads_batch);

void init_context(nb::module_ & m);
void init_memory(nb::class_<LlamaContext> & context);
void init_context_adapters(nb::class_<LlamaContext> & context);
void init_state(nb::module_ & m, nb::class_<LlamaContext> & context);
