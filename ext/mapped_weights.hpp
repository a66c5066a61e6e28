// Weights that are read where the file is mapped into memory.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "llama.h"

/// The weights of a model that are mapped from its file and that every token reads. To be destroyed before the model.
class MappedWeights {
  public:
    explicit MappedWeights(const llama_model * model);
    ~MappedWeights();
    MappedWeights(const MappedWeights &) = delete;
    MappedWeights & operator=(const MappedWeights &) = delete;

    size_t n_bytes() const;
    /// Has a thread replace them by a copy in large pages, from a second later on (huge_pages.hpp).
    void copy() const;

  private:
    std::vector<std::pair<const char *, size_t>> ranges_;
};
