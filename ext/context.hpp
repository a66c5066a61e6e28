// A context: the KV cache, the outputs of the last batch and the threads that compute them.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "adapter.hpp"
#include "guard.hpp"
#include "model.hpp"
#include "threadpools.hpp"

struct LlamaContextParams;
struct SamplerHandle;

namespace nb = nanobind;

/// Sampler chains that run in the graph of a context, by the sequence whose tokens they sample.
using GraphSamplers = std::map<llama_seq_id, std::shared_ptr<SamplerHandle>>;

/// The samplers in the order in which their locks are taken.
std::set<SamplerHandle *> by_address(const GraphSamplers & samplers);

/// The adapters that are set in a context.
struct ContextAdapters {
    std::map<std::shared_ptr<AdapterHandle>, float> scales;
    int n_nodes_without = 0; // nodes of the largest graph without adapters, once an adapter was set
};

/// Owns a llama_context and its threads. Every use of `context` happens with the lock held.
struct ContextHandle : ModelDependent {
    ContextHandle(std::shared_ptr<ModelHandle> model, llama_context * context, const LlamaContextParams & params,
                  std::shared_ptr<ContextHandle> other, GraphSamplers samplers);
    ~ContextHandle() override;

    /// Frees everything. To be called with the lock held, or when no other thread can hold it.
    void free() override;

    llama_context * context; // null if it is closed
    const std::shared_ptr<ModelHandle> model;
    const std::shared_ptr<ContextHandle> other; // whose memory this one reads
    const GraphSamplers samplers;
    ContextAdapters adapters;
    ThreadPools threadpools;
    std::atomic<bool> abort{false};
    bool has_encoder, embeddings, causal, kv_unified, can_shift;
    bool encoded = false; // whether encode() was called
    int64_t n_positions;  // learned position embeddings of the model, 0 if positions are computed
    int32_t n_vocab, n_seq_max, n_outputs_max;
    /// For each token of the last batch: kNoOutput, kLogits, or the sequence whose sampler in the graph took the logits.
    std::vector<int16_t> outputs;
    static constexpr int16_t kNoOutput = -2, kLogits = -1;
    PyObject * on_abort = nullptr; // borrowed from the LlamaContext, which outlives every decode
    PyObject * on_eval = nullptr;
    std::optional<nb::python_error> callback_error;
    /// Why the context cannot be used any more, if a check of llama.cpp failed during its work; else empty.
    std::string failed_check;
};

/// The Python class LlamaContext.
struct LlamaContext {
    std::shared_ptr<ContextHandle> handle;
    nb::object params; // keeps callbacks, samplers and the other context alive
};

/// A context locked for the length of a scope, with the GIL held; throws if it is closed.
class ContextUse {
  public:
    explicit ContextUse(const LlamaContext & context);
    llama_context * get() const { return handle_->context; }
    ContextHandle * operator->() const { return handle_.get(); }
    ContextHandle & operator*() const { return *handle_; }
    const std::shared_ptr<ContextHandle> & handle() const { return handle_; }

    /// ValueError unless the context has a sequence `seq_id`.
    void check_sequence(llama_seq_id seq_id) const;
    /// Index in the last batch of token `index`, or of the -index-th last output. IndexError if that token has no output.
    int32_t check_output(int32_t index) const;

  private:
    std::shared_ptr<ContextHandle> handle_; // declared first: it must outlive the guards
    std::optional<Guard> other_guard_;
    Guard guard_;
};

/// LlamaContext.__init__: creates a context (llama_init_from_model) in the object at `self`. `params` is null for the defaults.
void create_context(LlamaContext * self, const LlamaModel & model, const LlamaContextParams * params);
