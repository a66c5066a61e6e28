// Projectors: images as embeddings of a model (llama.cpp's tools/mtmd).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "model.hpp"
#include "mtmd.h"

using ProjectorPtr = std::shared_ptr<mtmd_context>;
using ImageChunksPtr = std::unique_ptr<mtmd_input_chunks, decltype(&mtmd_input_chunks_free)>;

/// Owns a mtmd_context, which one thread at a time encodes with: the one that holds the lock. Any number may tokenize.
struct ProjectorHandle : ModelDependent {
    ProjectorHandle(std::shared_ptr<ModelHandle> model, ProjectorPtr context, std::string path);
    ~ProjectorHandle() override;
    void free() override;
    /// Throws if it is closed.
    ProjectorPtr get();

    const std::shared_ptr<ModelHandle> model;
    const std::string path;
    int32_t n_embd; // numbers of an embedding
    bool non_causal;

  private:
    std::mutex context_mutex_; // held for a few instructions only
    ProjectorPtr context_;     // null if it is closed
};

/// The Python class LlamaProjector.
struct LlamaProjector {
    std::shared_ptr<ProjectorHandle> handle;
};

/// The Python class LlamaImage: an image as mtmd has prepared it, never changed.
struct LlamaImage {
    std::shared_ptr<ProjectorHandle> projector;
    ImageChunksPtr chunks;
    size_t n_tokens; // embeddings of all chunks
};

/// The Python class LlamaEmbeddings: rows of numbers, never changed.
struct LlamaEmbeddings {
    std::shared_ptr<const std::vector<float>> values;
    int32_t n_embd;
    int32_t n_tokens;
};
