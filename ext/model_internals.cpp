#include "model_internals.hpp"

#include <algorithm>
#include <cstring>

#include "llama-context.h" // not of llama.cpp's public API, as the next one
#include "llama-model.h"

namespace {

// Whether a token reads one row of a tensor only: that of an embedding which is not the output as well.
bool is_looked_up(const llama_model * model, const ggml_tensor * tensor) {
    const bool is_output = model->output && model->output->data == tensor->data;
    return (tensor == model->tok_embd && !is_output) || tensor == model->per_layer_tok_embd;
}

} // namespace

int64_t n_learned_positions(const llama_model * model) { return model->pos_embd ? model->pos_embd->ne[1] : 0; }

bool rolls_states_back(const llama_model * model) { return llm_arch_supports_rs_rollback(model->arch); }

enum llama_pooling_type default_pooling(const llama_model * model) {
    const enum llama_pooling_type type = model->hparams.pooling_type;
    return type == LLAMA_POOLING_TYPE_UNSPECIFIED ? LLAMA_POOLING_TYPE_NONE : type;
}

int n_graph_nodes(llama_context * context) { return ggml_graph_n_nodes(context->get_gf_res_reserve()->get_gf()); }

size_t most_graph_nodes(llama_context * context) {
    return context->graph_max_nodes(std::min(llama_n_ctx(context), llama_n_ubatch(context)));
}

int32_t n_layers(const llama_model * model) { return static_cast<int32_t>(model->hparams.n_layer_all) + 1; }

ggml_backend_dev_t device_of_layer(const llama_model * model, int32_t il) {
    return il + 1 < n_layers(model) ? model->dev_layer(il) : model->dev_output();
}

std::map<ggml_backend_buffer_type_t, size_t> weights_by_buffer(const llama_model * model) {
    return model->memory_breakdown();
}

std::vector<std::pair<const char *, size_t>> mapped_weights(const llama_model * model) {
    constexpr ptrdiff_t kGap = 4096; // between tensors that follow each other: padding
    std::vector<std::pair<const char *, size_t>> tensors, ranges;
    for (const auto & [name, tensor] : model->tensors_by_name) {
        if (tensor->buffer && std::strcmp(ggml_backend_buffer_name(tensor->buffer), "CPU_Mapped") == 0 &&
            !is_looked_up(model, tensor)) {
            tensors.emplace_back(static_cast<const char *>(tensor->data), ggml_nbytes(tensor));
        }
    }
    std::sort(tensors.begin(), tensors.end());
    for (const auto & [data, size] : tensors) {
        if (ranges.empty() || data - (ranges.back().first + ranges.back().second) > kGap) {
            ranges.emplace_back(data, size);
        } else { // an output that is the embedding as well is there twice
            auto & [begin, n_bytes] = ranges.back();
            n_bytes = std::max(n_bytes, static_cast<size_t>(data - begin) + size);
        }
    }
    return ranges;
}
