#include "model_internals.hpp"

#include "llama-model.h" // not of llama.cpp's public API

int64_t n_learned_positions(const llama_model * model) { return model->pos_embd ? model->pos_embd->ne[1] : 0; }

bool rolls_states_back(const llama_model * model) { return llm_arch_supports_rs_rollback(model->arch); }

enum llama_pooling_type default_pooling(const llama_model * model) {
    const enum llama_pooling_type type = model->hparams.pooling_type;
    return type == LLAMA_POOLING_TYPE_UNSPECIFIED ? LLAMA_POOLING_TYPE_NONE : type;
}
