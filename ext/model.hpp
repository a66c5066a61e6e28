// A loaded model, shared by everything that uses it.
#pragma once

#include <nanobind/nanobind.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "llama.h"

namespace nb = nanobind;

struct ContextHandle;

/// Owns a llama_model. Contexts, vocabularies and samplers share it; `close` frees it under them all, safely.
class ModelHandle {
  public:
    ModelHandle(llama_model * model, std::string path) : model_(model), path_(std::move(path)) {}
    ~ModelHandle();
    ModelHandle(const ModelHandle &) = delete;
    ModelHandle & operator=(const ModelHandle &) = delete;

    /// Registers a context, to be closed before the model is.
    void add_context(const std::shared_ptr<ContextHandle> & context);
    /// Closes the contexts, waits for whoever uses the model, frees it. To be called without the GIL.
    void close();
    bool closed();
    const std::string & path() const { return path_; }

  private:
    friend class ModelUse;
    llama_model * model_;
    const std::string path_;
    std::mutex mutex_; // held for a few instructions only, so that waiting for it with the GIL held is harmless
    std::mutex close_mutex_; // held while closing
    std::condition_variable unused_;
    int users_ = 0;
    bool closed_ = false;
    std::vector<std::weak_ptr<ContextHandle>> contexts_;
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
    int32_t n_vocab() const { return llama_vocab_n_tokens(vocab()); }
    /// Throws unless `token` is one of the vocabulary's.
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

/// Text of llama.cpp's as str: a file may hold anything, so that broken UTF-8 is replaced and not refused.
nb::str to_str(const std::string & text);
