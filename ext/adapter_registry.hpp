// The LoRA adapters of a model, and when they may come and go.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "llama.h"
#include "process.hpp"

/// The adapters of a model. llama.cpp keeps them in a set of the model, which every context reads while it reserves memory
/// for its graph. Any decode may do that, so adapters are loaded and freed between decodes only.
class AdapterRegistry {
  public:
    AdapterRegistry() = default;
    AdapterRegistry(const AdapterRegistry &) = delete;
    AdapterRegistry & operator=(const AdapterRegistry &) = delete;

    /// Loads a file while no context computes. To be called without the GIL. Returns null if llama.cpp refuses the file.
    llama_adapter_lora * load(llama_model * model, const std::string & path);
    /// Frees an adapter now, or as soon as no context computes. Never waits for that.
    void free(llama_adapter_lora * adapter);
    /// To be called before the model is freed, which frees all its adapters.
    void forget();

  private:
    friend class AdaptersUse;
    bool forked() const { return process_ != current_process(); }
    void free_unused();

    const long process_ = current_process();
    std::mutex mutex_; // held for a few instructions only, so that a wait for it with the GIL held is harmless
    std::condition_variable changed_;
    int users_ = 0;
    int loads_waiting_ = 0;
    bool loading_ = false;
    bool forgotten_ = false;
    std::vector<llama_adapter_lora *> unused_; // to be freed when no context computes
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
