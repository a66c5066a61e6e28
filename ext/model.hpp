// A loaded model, shared by everything that uses it.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "adapter.hpp"
#include "guard.hpp"
#include "llama.h"

struct ContextHandle;
class TokenTrie;

/// Owns a llama_model. Contexts, vocabularies and samplers share it; `close` frees it under them all, safely.
class ModelHandle {
  public:
    ModelHandle(llama_model * model, std::string path, uint64_t weights, bool has_weights, bool causal)
        : weights(weights), has_weights(has_weights), causal(causal), model_(model), path_(std::move(path)) {}
    ~ModelHandle();
    ModelHandle(const ModelHandle &) = delete;
    ModelHandle & operator=(const ModelHandle &) = delete;

    /// Registers a context, to be closed before the model is.
    void add_context(const std::shared_ptr<ContextHandle> & context);
    /// Closes the contexts, waits for whoever uses the model, frees it. To be called without the GIL.
    void close();
    bool closed();
    const std::string & path() const { return path_; }

    /// The LoRA adapters that were loaded for it.
    AdapterRegistry adapters;

    /// The texts of the vocabulary, once a grammar needs them.
    std::atomic<const std::shared_ptr<const TokenTrie> *> trie{nullptr}; // owned
    std::mutex trie_mutex;                                               // lets one thread make it for all that want it

    const uint64_t
        weights; // what tells its weights from those of other models, the same wherever and however they were loaded
    const bool has_weights; // otherwise it was loaded with vocab_only or no_alloc
    const bool causal;      // whether a token attends to earlier ones only

    /// A forked child reads the model as the parent left it, without the locks that a thread of the parent may have held.
    bool forked() const { return process_ != current_process(); }

  private:
    friend class ModelUse;
    const long process_ = current_process();
    llama_model * model_;
    const std::string path_;
    std::mutex mutex_;       // held for a few instructions only, so that waiting for it with the GIL held is harmless
    std::mutex close_mutex_; // held while closing
    std::condition_variable unused_;
    int users_ = 0;
    std::atomic<bool> closed_{false};
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
    /// Throws unless there is a vocabulary of text, which llama.cpp asserts.
    void check_vocab() const;
    /// The same, and throws unless `token` is one of it.
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

/// Throws what llama.cpp would answer with an abort of the process if the file said it, or the parameters did.
void check_metadata(const std::string & path, const llama_model_params & params);

/// The same for a vocabulary that lacks tokens which llama.cpp would add to a prompt.
void check_vocabulary(const llama_vocab * vocab);

/// A hash of samples of every tensor in a model's file or files.
uint64_t hash_weights(const std::string & path);

/// Refuses what is no GGUF file before llama.cpp sees it, with the operating system's own error where there is one.
void check_gguf(const std::string & path);

/// Throws a Python exception. The message may contain text of a file's, which need not be UTF-8: what() could not carry it.
[[noreturn]] void raise(PyObject * type, const std::string & message);

/// A path, str, bytes or os.PathLike, as the operating system takes it. ValueError if it contains a NUL.
std::string to_path(nb::handle path);
/// Throws OSError, FileNotFoundError and the like for errno `error`.
[[noreturn]] void raise_os_error(const std::string & path, int error);
/// Returns 0, or an errno: what is no regular file (a FIFO, a device) may block forever or never end. To be called before
/// such a file is opened; what does not exist is fine.
int check_regular(const std::string & path);

/// Size of a KV cache of `n_ctx` tokens, or nothing where it is not simply keys and values of every layer for every token
/// (sliding windows, recurrent states, encoders).
std::optional<int64_t> kv_cache_bytes(const llama_model * model, int64_t n_ctx, enum ggml_type type_k,
                                      enum ggml_type type_v);

/// Text of llama.cpp's as str: a file may hold anything, so that broken UTF-8 is replaced and not refused.
nb::str to_str(const std::string & text);

/// The same as UTF-8, for the message of an exception: llama.cpp cuts texts anywhere, and within a character no message can
/// become a str.
std::string valid_utf8(const std::string & text);

/// Lets exceptions whose message is not UTF-8 have one that is.
void init_exceptions();

/// Text that llama.cpp writes into a buffer of a given size, as snprintf does; empty where there is none.
template <class Read> std::string read_string(Read read_into) {
    std::vector<char> buffer(256);
    int32_t length = read_into(buffer.data(), buffer.size());
    if (length >= static_cast<int32_t>(buffer.size())) {
        buffer.resize(static_cast<size_t>(length) + 1);
        length = read_into(buffer.data(), buffer.size());
    }
    return length < 0 ? std::string() : std::string(buffer.data(), static_cast<size_t>(length));
}
