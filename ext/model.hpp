// A loaded model, shared by all objects that use it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "adapter_registry.hpp"
#include "llama.h"
#include "lock.hpp"
#include "mapped_weights.hpp"

class TokenTrie;

/// An object of llama.cpp that must be freed before its model: a context.
struct ModelDependent : Guarded {
    virtual ~ModelDependent() = default;
    /// Frees it. To be called with the lock held.
    virtual void free() = 0;
};

/// Owns a llama_model. Contexts, vocabularies and samplers share it. `close` frees it even if they still exist: from then
/// on, each use of them throws.
class ModelHandle {
  public:
    ModelHandle(llama_model * model, std::string path, uint64_t weights, bool has_weights, bool simulated, bool causal)
        : weights(weights), has_weights(has_weights), simulated(simulated), causal(causal), model_(model),
          path_(std::move(path)), mapped_(std::make_unique<MappedWeights>(model)) {}
    ~ModelHandle();
    ModelHandle(const ModelHandle &) = delete;
    ModelHandle & operator=(const ModelHandle &) = delete;

    /// Registers a context, to be freed before the model is.
    void add_context(const std::shared_ptr<ModelDependent> & context);
    /// Frees the contexts, waits for the threads that use the model, frees it. To be called without the GIL.
    void close();
    bool closed();
    const std::string & path() const { return path_; }

    /// The LoRA adapters that were loaded for it.
    AdapterRegistry adapters;

    /// The texts of the vocabulary, once a grammar needs them.
    std::atomic<const std::shared_ptr<const TokenTrie> *> trie{nullptr}; // owned
    std::mutex trie_mutex;                                               // held by the thread that makes the trie

    const uint64_t weights; // a hash of the weights: the same for each load of a file, and other than that of other models
    const bool has_weights; // false if the model was loaded with vocab_only or no_alloc
    const bool simulated;   // true if it was loaded with no_alloc: contexts of it allocate nothing
    const bool causal;      // whether a token attends to earlier ones only

    /// Whether this process is a forked child of the one that loaded the model. A child reads the model as the parent left
    /// it, without the locks: a thread that exists in the parent only may have held them.
    bool forked() const { return process_ != current_process(); }

  private:
    friend class ModelUse;
    const long process_ = current_process();
    llama_model * model_;
    const std::string path_;
    std::unique_ptr<MappedWeights> mapped_; // freed before the model is
    std::mutex mutex_;       // held for a few instructions only, so that a wait for it with the GIL held is harmless
    std::mutex close_mutex_; // held while the model closes
    std::condition_variable unused_;
    int users_ = 0;
    std::atomic<bool> closed_{false};
    std::vector<std::weak_ptr<ModelDependent>> contexts_;
};

/// Keeps a model from being freed for the length of a scope; throws if it is closed.
class ModelUse {
  public:
    explicit ModelUse(std::shared_ptr<ModelHandle> handle);
    ~ModelUse();
    ModelUse(const ModelUse &) = delete;
    ModelUse & operator=(const ModelUse &) = delete;

    llama_model * get() const { return handle_->model_; }
    const llama_vocab * vocab() const { return llama_model_get_vocab(get()); }
    const MappedWeights & mapped() const { return *handle_->mapped_; }
    int32_t n_vocab() const { return llama_vocab_n_tokens(vocab()); }
    /// Throws unless the model has a vocabulary of text, which llama.cpp asserts.
    void check_vocab() const;
    /// The same, and throws unless `token` is one of the vocabulary.
    void check_token(llama_token token) const;

  private:
    std::shared_ptr<ModelHandle> handle_;
};

/// The Python class LlamaModel.
struct LlamaModel {
    std::shared_ptr<ModelHandle> handle;
};

/// The Python class LlamaVocab.
struct LlamaVocab {
    std::shared_ptr<ModelHandle> handle;
};
