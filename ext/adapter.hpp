// LoRA adapters: what is added to the weights of a model while a context computes.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model.hpp"

/// Owns a llama_adapter_lora. The contexts that it is set in share it.
struct AdapterHandle {
    ~AdapterHandle();

    std::shared_ptr<ModelHandle> model;
    llama_adapter_lora * adapter;
    std::string path;
    std::vector<std::pair<std::string, std::string>> metadata;
    std::vector<llama_token> invocation_tokens;
    size_t n_weights; // weights of the model that it changes
};

/// The Python class LlamaAdapterLora.
struct LlamaAdapterLora {
    std::shared_ptr<AdapterHandle> handle; // null if it is closed
};

/// Returns the handle, which keeps the adapter from being freed. Throws if the adapter or its model is closed.
std::shared_ptr<AdapterHandle> open_adapter(const LlamaAdapterLora & adapter);
