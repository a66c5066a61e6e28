// LoRA adapters: what is added to the weights of a model while a context computes.
#pragma once

#include <nanobind/nanobind.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "guard.hpp"
#include "llama.h"

class ModelHandle;

/// The adapters of a model. llama.cpp notes them in a set that every context reads while it reserves memory for its graph, which
/// any decode may do: so they come and go between decodes only.
class AdapterRegistry {
  public:
    AdapterRegistry() = default;
    AdapterRegistry(const AdapterRegistry &) = delete;
    AdapterRegistry & operator=(const AdapterRegistry &) = delete;

    /// Loads a file while no context computes. To be called without the GIL. Returns null if llama.cpp refuses it.
    llama_adapter_lora * load(llama_model * model, const std::string & path);
    /// Frees an adapter now, or as soon as no context computes. Never waits for that.
    void free(llama_adapter_lora * adapter);
    /// The model is about to free all of them.
    void forget();

  private:
    friend class AdaptersUse;
    bool forked() const { return process_ != current_process(); }
    void free_unused();

    const long process_ = current_process();
    std::mutex mutex_; // held for a few instructions only, so that waiting for it with the GIL held is harmless
    std::condition_variable changed_;
    int users_ = 0;
    int loads_waiting_ = 0;
    bool loading_ = false;
    bool forgotten_ = false;
    std::vector<llama_adapter_lora *> unused_; // to be freed when nobody computes
};

/// Keeps the adapters of a model as they are for the length of a scope, in which a context computes. Without the GIL.
class AdaptersUse {
  public:
    explicit AdaptersUse(AdapterRegistry & registry);
    ~AdaptersUse();
    AdaptersUse(const AdaptersUse &) = delete;
    AdaptersUse & operator=(const AdaptersUse &) = delete;

  private:
    AdapterRegistry & registry_;
};

/// Owns a llama_adapter_lora. The contexts that it is set in share it.
struct AdapterHandle {
    ~AdapterHandle();

    std::shared_ptr<ModelHandle> model;
    llama_adapter_lora * adapter;
    std::string path;
    std::vector<std::pair<std::string, std::string>> metadata;
    std::vector<llama_token> invocation_tokens;
    size_t n_weights; // of the model that it changes
};

/// The adapters that are set in a context.
struct ContextAdapters {
    std::map<std::shared_ptr<AdapterHandle>, float> scales;
    int n_nodes_without = 0; // of the largest graph, once an adapter was set
};

/// The Python class LlamaAdapterLora.
struct LlamaAdapterLora {
    std::shared_ptr<AdapterHandle> handle; // null if it is closed
};

void init_adapter(nb::module_ & m);
