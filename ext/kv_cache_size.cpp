#include "kv_cache_size.hpp"

#include <algorithm>
#include <cmath>

#include "llama-context.h" // not of llama.cpp's public API, as the next one
#include "llama-model.h"

// llama.cpp tells the size of a memory only after it has allocated it, or for a model that was loaded without weights. This
// is how llama_model::create_memory and the memories' constructors compute it; tests compare the two.
namespace {

// The sizes of a context, as llama_context's constructor derives them from its parameters.
struct Sizes {
    Sizes(const llama_model & model, const llama_context_params & params)
        : type_k(params.type_k), type_v(params.type_v), offload(params.offload_kqv),
          transposed(params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
        constexpr int64_t kPadding = 256;
        const llama_hparams & hparams = model.hparams;
        const int64_t n_ctx = params.n_ctx ? params.n_ctx : hparams.n_ctx_train;
        const int64_t n_seq = std::max<int64_t>(params.n_seq_max, 1);
        const bool causal = params.attention_type == LLAMA_ATTENTION_TYPE_UNSPECIFIED
                                ? hparams.causal_attn
                                : params.attention_type == LLAMA_ATTENTION_TYPE_CAUSAL;
        const int64_t n_batch = causal ? std::min<int64_t>(n_ctx, params.n_batch) : params.n_batch;
        const int64_t n_ubatch = params.n_ubatch ? std::min<int64_t>(n_batch, params.n_ubatch) : n_batch;
        const int64_t n_streams = params.kv_unified ? 1 : n_seq;
        const int64_t stream = GGML_PAD(GGML_PAD(n_ctx, kPadding) / n_streams, kPadding);
        const int64_t window = int64_t{hparams.n_swa} * (params.kv_unified ? n_seq : 1) + n_ubatch;
        cells = stream * n_streams;
        window_cells = (params.swa_full ? stream : GGML_PAD(std::min(stream, window), kPadding)) * n_streams;
        states = n_seq * (1 + (llm_arch_supports_rs_rollback(model.arch) ? int64_t{params.n_rs_seq} : 0));
    }

    int64_t cells, window_cells, states; // of all sequences together; `states`: rows of recurrent states
    enum ggml_type type_k, type_v;
    bool offload;
    bool transposed; // the values of a cell are not adjacent
};

// Architectures whose contexts have no memory.
bool has_no_memory(llm_arch arch) {
    switch (arch) {
        case LLM_ARCH_BERT:
        case LLM_ARCH_JINA_BERT_V2:
        case LLM_ARCH_JINA_BERT_V3:
        case LLM_ARCH_NOMIC_BERT:
        case LLM_ARCH_NOMIC_BERT_MOE:
        case LLM_ARCH_NEO_BERT:
        case LLM_ARCH_EUROBERT:
        case LLM_ARCH_WAVTOKENIZER_DEC:
        case LLM_ARCH_MODERN_BERT:
        case LLM_ARCH_GEMMA_EMBEDDING:
        case LLM_ARCH_DREAM:
        case LLM_ARCH_LLADA:
        case LLM_ARCH_LLADA_MOE:
        case LLM_ARCH_RND1: return true;
        default: return false;
    }
}

// Architectures whose memory has parts besides keys, values, windows and states, or shares those of another context.
bool has_other_memory(llm_arch arch) {
    switch (arch) {
        case LLM_ARCH_MINIMAX_M3:
        case LLM_ARCH_GLM_DSA:
        case LLM_ARCH_DEEPSEEK32:
        case LLM_ARCH_DEEPSEEK4:
        case LLM_ARCH_DOTS3NOTE:
        case LLM_ARCH_GEMMA4_ASSISTANT: return true;
        default: return false;
    }
}

// Whether a layer has keys and values.
bool has_keys(const llama_model & model, uint32_t il) {
    const llama_hparams & hparams = model.hparams;
    if (!hparams.has_kv(il) || llm_arch_is_recurrent(model.arch)) {
        return false;
    }
    switch (model.arch) {
        case LLM_ARCH_FALCON_H1: return true;
        case LLM_ARCH_NEMOTRON_H:
        case LLM_ARCH_NEMOTRON_H_MOE: return !hparams.is_recr(il) && hparams.n_ff(il) == 0;
        case LLM_ARCH_QWEN3NEXT:
        case LLM_ARCH_QWEN35:
        case LLM_ARCH_QWEN35MOE:
        case LLM_ARCH_MINIMAX_01: return il < hparams.n_layer() && !hparams.is_recr(il);
        case LLM_ARCH_STEP35:
        case LLM_ARCH_HY_V3:
        case LLM_ARCH_MIMO2: return il < hparams.n_layer();
        default: return !llm_arch_is_hybrid(model.arch) || !hparams.is_recr(il);
    }
}

// Whether a layer has a recurrent state.
bool has_state(const llama_model & model, uint32_t il) {
    const llama_hparams & hparams = model.hparams;
    if (il >= hparams.n_layer() || !(llm_arch_is_recurrent(model.arch) || llm_arch_is_hybrid(model.arch))) {
        return false;
    }
    switch (model.arch) {
        case LLM_ARCH_FALCON_H1: return true;
        case LLM_ARCH_NEMOTRON_H:
        case LLM_ARCH_NEMOTRON_H_MOE: return hparams.is_recr(il) && hparams.n_ff(il) == 0;
        default: return llm_arch_is_recurrent(model.arch) || hparams.is_recr(il);
    }
}

// double: n_ctx may be so large that the product does not fit into int64_t.
double tensor_bytes(enum ggml_type type, double n_elements, double alignment) {
    const double bytes = n_elements * ggml_type_size(type) / ggml_blck_size(type);
    return std::ceil(bytes / alignment) * alignment;
}

// The least unit of memory is `alignment`, in bytes.
double layer_bytes(const llama_model & model, const Sizes & sizes, uint32_t il, double alignment) {
    const llama_hparams & hparams = model.hparams;
    double bytes = 0;
    if (has_keys(model, il)) {
        const bool windowed = hparams.swa_type != LLAMA_SWA_TYPE_NONE && hparams.is_swa(il);
        const double cells = windowed ? sizes.window_cells : sizes.cells;
        const uint32_t n_value = sizes.transposed ? hparams.n_embd_v_gqa_max() : hparams.n_embd_v_gqa(il);
        bytes += tensor_bytes(sizes.type_k, cells * hparams.n_embd_k_gqa(il), alignment);
        bytes += hparams.is_mla() ? 0 : tensor_bytes(sizes.type_v, cells * n_value, alignment);
    }
    if (has_state(model, il)) {
        bytes += tensor_bytes(GGML_TYPE_F32, double(sizes.states) * hparams.n_embd_r(), alignment);
        bytes += tensor_bytes(GGML_TYPE_F32, double(sizes.states) * hparams.n_embd_s(), alignment);
    }
    return bytes;
}

} // namespace

std::optional<std::map<std::string, int64_t>> kv_cache_bytes(const llama_model * model,
                                                             const llama_context_params & params) {
    if (has_other_memory(model->arch) || params.ctx_type != LLAMA_CONTEXT_TYPE_DEFAULT) {
        return std::nullopt;
    }
    std::map<std::string, int64_t> result;
    if (has_no_memory(model->arch)) {
        return result;
    }
    const Sizes sizes(*model, params);
    std::map<std::string, double> bytes;
    for (uint32_t il = 0; il < model->hparams.n_layer_all; ++il) {
        ggml_backend_dev_t device = sizes.offload ? model->dev_layer(static_cast<int>(il)) : nullptr;
        device = device ? device : ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        const auto alignment = ggml_backend_buft_get_alignment(ggml_backend_dev_buffer_type(device));
        bytes[ggml_backend_dev_name(device)] += layer_bytes(*model, sizes, il, static_cast<double>(alignment));
    }
    for (const auto & [device, n] : bytes) {
        result[device] = n < 0x1p63 ? static_cast<int64_t>(n) : INT64_MAX;
    }
    return result;
}
