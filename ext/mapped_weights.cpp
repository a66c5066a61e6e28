#include "mapped_weights.hpp"

#include "huge_pages.hpp"
#include "model_internals.hpp"

MappedWeights::MappedWeights(const llama_model * model) : ranges_(mapped_weights(model)) {}

MappedWeights::~MappedWeights() {
    for (const auto & [data, size] : ranges_) {
        cyllama_keep_mapped(data, size);
    }
}

size_t MappedWeights::n_bytes() const {
    size_t n = 0;
    for (const auto & range : ranges_) {
        n += range.second;
    }
    return n;
}

void MappedWeights::copy() const {
    for (const auto & [data, size] : ranges_) {
        cyllama_copy_mapped(data, size);
    }
    cyllama_enlarge_pages();
}
