// Enumerations of llama.h that Python sees. They come first in the module: default arguments of other functions refer to
// them.
#include "llama.h"
#include "modules.hpp"

namespace {

void init_model_enums(nb::module_ & m) {
    nb::enum_<enum llama_split_mode>(m, "LlamaSplitMode", nb::is_arithmetic(), "How a model is split over several GPUs.")
        .value("NONE", LLAMA_SPLIT_MODE_NONE, "One GPU.")
        .value("LAYER", LLAMA_SPLIT_MODE_LAYER, "Layers and KV cache over all GPUs.")
        .value("ROW", LLAMA_SPLIT_MODE_ROW, "Layers and KV cache over all GPUs, tensor parallelism where supported.")
        .value("TENSOR", LLAMA_SPLIT_MODE_TENSOR, "Tensor parallelism.");
    nb::enum_<enum llama_load_mode>(m, "LlamaLoadMode", nb::is_arithmetic(), "How a model file is read.")
        .value("AUTO", LLAMA_LOAD_MODE_AUTO, "llama.cpp decides.")
        .value("NONE", LLAMA_LOAD_MODE_NONE, "Read into memory.")
        .value("MMAP", LLAMA_LOAD_MODE_MMAP, "Memory-mapped.")
        .value("MLOCK", LLAMA_LOAD_MODE_MLOCK, "Read into memory, and locked there.")
        .value("MMAP_MLOCK", LLAMA_LOAD_MODE_MMAP_MLOCK, "Memory-mapped, and locked in memory.")
        .value("DIRECT_IO", LLAMA_LOAD_MODE_DIRECT_IO, "Read into memory without the page cache.");
    nb::enum_<enum llama_vocab_type>(m, "LlamaVocabType", nb::is_arithmetic(), "The kind of tokenizer.")
        .value("NONE", LLAMA_VOCAB_TYPE_NONE, "No vocabulary of text.")
        .value("SPM", LLAMA_VOCAB_TYPE_SPM, "SentencePiece.")
        .value("BPE", LLAMA_VOCAB_TYPE_BPE, "Byte pair encoding.")
        .value("WPM", LLAMA_VOCAB_TYPE_WPM, "WordPiece.")
        .value("UGM", LLAMA_VOCAB_TYPE_UGM, "Unigram.")
        .value("RWKV", LLAMA_VOCAB_TYPE_RWKV, "Greedy, as in RWKV.")
        .value("PLAMO2", LLAMA_VOCAB_TYPE_PLAMO2, "As in PLaMo-2.");
}

void init_context_enums(nb::module_ & m) {
    nb::enum_<enum llama_context_type>(m, "LlamaContextType", nb::is_arithmetic(), "What a context computes.")
        .value("DEFAULT", LLAMA_CONTEXT_TYPE_DEFAULT, "The model.")
        .value("MTP", LLAMA_CONTEXT_TYPE_MTP, "Multi-token prediction.");
    nb::enum_<enum llama_rope_scaling_type>(m, "LlamaRopeScalingType", nb::is_arithmetic(), "How RoPE is scaled.")
        .value("UNSPECIFIED", LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED, "As the model says.")
        .value("NONE", LLAMA_ROPE_SCALING_TYPE_NONE)
        .value("LINEAR", LLAMA_ROPE_SCALING_TYPE_LINEAR)
        .value("YARN", LLAMA_ROPE_SCALING_TYPE_YARN)
        .value("LONGROPE", LLAMA_ROPE_SCALING_TYPE_LONGROPE);
    nb::enum_<enum llama_pooling_type>(m, "LlamaPoolingType", nb::is_arithmetic(),
                                       "How the embeddings of a sequence's tokens become one.")
        .value("UNSPECIFIED", LLAMA_POOLING_TYPE_UNSPECIFIED, "As the model says.")
        .value("NONE", LLAMA_POOLING_TYPE_NONE, "One embedding for each token.")
        .value("MEAN", LLAMA_POOLING_TYPE_MEAN, "Their mean.")
        .value("CLS", LLAMA_POOLING_TYPE_CLS, "The embedding of the first token.")
        .value("LAST", LLAMA_POOLING_TYPE_LAST, "The embedding of the last token.")
        .value("RANK", LLAMA_POOLING_TYPE_RANK, "Scores instead of an embedding.");
    nb::enum_<enum llama_attention_type>(m, "LlamaAttentionType", nb::is_arithmetic(), "Which tokens a token attends to.")
        .value("UNSPECIFIED", LLAMA_ATTENTION_TYPE_UNSPECIFIED, "As the model says.")
        .value("CAUSAL", LLAMA_ATTENTION_TYPE_CAUSAL, "Earlier ones.")
        .value("NON_CAUSAL", LLAMA_ATTENTION_TYPE_NON_CAUSAL, "All tokens of its sequence.");
    nb::enum_<enum llama_flash_attn_type>(m, "LlamaFlashAttnType", nb::is_arithmetic(), "When to use flash attention.")
        .value("AUTO", LLAMA_FLASH_ATTN_TYPE_AUTO, "Where it is supported.")
        .value("DISABLED", LLAMA_FLASH_ATTN_TYPE_DISABLED)
        .value("ENABLED", LLAMA_FLASH_ATTN_TYPE_ENABLED);
    nb::enum_<enum ggml_type>(m, "GGMLType", nb::is_arithmetic(), "Data types that a KV cache can have.")
        .value("F32", GGML_TYPE_F32)
        .value("F16", GGML_TYPE_F16)
        .value("BF16", GGML_TYPE_BF16)
        .value("Q8_0", GGML_TYPE_Q8_0)
        .value("Q4_0", GGML_TYPE_Q4_0)
        .value("Q4_1", GGML_TYPE_Q4_1)
        .value("IQ4_NL", GGML_TYPE_IQ4_NL)
        .value("Q5_0", GGML_TYPE_Q5_0)
        .value("Q5_1", GGML_TYPE_Q5_1);
}

} // namespace

void init_enums(nb::module_ & m) {
    m.attr("LLAMA_DEFAULT_SEED") = LLAMA_DEFAULT_SEED;
    m.attr("LLAMA_STATE_SEQ_FLAGS_NONE") = LLAMA_STATE_SEQ_FLAGS_NONE;
    m.attr("LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY") = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
    init_model_enums(m);
    init_context_enums(m);
}
