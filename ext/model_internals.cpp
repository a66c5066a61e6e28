#include "model_internals.hpp"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "llama-context.h" // not of llama.cpp's public API, as the next one
#include "llama-model.h"
#include "text.hpp"

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

// A number of the model's metadata, such as "llama.attention.key_length", or `otherwise` if it is missing or 0.
static double attention_number(const llama_model * model, const std::string & name, double otherwise) {
    const auto value = [&](const std::string & key) {
        return read_string(
            [&](char * buffer, size_t size) { return llama_model_meta_val_str(model, key.c_str(), buffer, size); });
    };
    const std::string text = value(value("general.architecture") + ".attention." + name);
    const double number = std::strtod(text.c_str(), nullptr);
    return number > 0 ? number : otherwise;
}

std::optional<int64_t> kv_cache_bytes(const llama_model * model, int64_t n_ctx, enum ggml_type type_k,
                                      enum ggml_type type_v) {
    const int32_t n_head = llama_model_n_head(model);
    if (llama_model_n_swa(model) != 0 || llama_model_is_recurrent(model) || llama_model_is_hybrid(model) ||
        !llama_model_has_decoder(model) || n_head <= 0) {
        return std::nullopt;
    }
    const double head = llama_model_n_embd(model) / n_head;
    const double key = attention_number(model, "key_length", head) * ggml_type_size(type_k) / ggml_blck_size(type_k);
    const double value = attention_number(model, "value_length", head) * ggml_type_size(type_v) / ggml_blck_size(type_v);
    const double bytes =
        static_cast<double>(n_ctx) * llama_model_n_layer(model) * llama_model_n_head_kv(model) * (key + value);
    return bytes < 0x1p63 ? static_cast<int64_t>(bytes) : INT64_MAX;
}
