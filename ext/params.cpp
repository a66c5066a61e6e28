#include "params.hpp"

#include <cfloat>

// Python objects that a parameter object holds may refer back to it: let the garbage collector see them.

static int model_params_traverse(PyObject * self, visitproc visit, void * arg) {
#if PY_VERSION_HEX >= 0x03090000
    Py_VISIT(Py_TYPE(self));
#endif
    if (nb::inst_ready(self)) {
        Py_VISIT(nb::inst_ptr<LlamaModelParams>(self)->on_progress.ptr());
    }
    return 0;
}

static int model_params_clear(PyObject * self) {
    if (nb::inst_ready(self)) {
        nb::inst_ptr<LlamaModelParams>(self)->on_progress = nb::none();
    }
    return 0;
}

static int context_params_traverse(PyObject * self, visitproc visit, void * arg) {
#if PY_VERSION_HEX >= 0x03090000
    Py_VISIT(Py_TYPE(self));
#endif
    if (nb::inst_ready(self)) {
        auto * params = nb::inst_ptr<LlamaContextParams>(self);
        Py_VISIT(params->sampler_list.ptr());
        Py_VISIT(params->on_abort.ptr());
        Py_VISIT(params->on_eval.ptr());
        Py_VISIT(params->other_context.ptr());
    }
    return 0;
}

static int context_params_clear(PyObject * self) {
    if (nb::inst_ready(self)) {
        auto * params = nb::inst_ptr<LlamaContextParams>(self);
        params->sampler_list = nb::none();
        params->on_abort = nb::none();
        params->on_eval = nb::none();
        params->other_context = nb::none();
    }
    return 0;
}

static PyType_Slot model_params_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void *>(model_params_traverse)},
    {Py_tp_clear, reinterpret_cast<void *>(model_params_clear)},
    {0, nullptr},
};

static PyType_Slot context_params_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void *>(context_params_traverse)},
    {Py_tp_clear, reinterpret_cast<void *>(context_params_clear)},
    {0, nullptr},
};

static void init_enums(nb::module_ & m) {
    nb::enum_<enum llama_split_mode>(m, "LlamaSplitMode", nb::is_arithmetic(), "How a model is split over several GPUs.")
        .value("NONE", LLAMA_SPLIT_MODE_NONE, "One GPU.")
        .value("LAYER", LLAMA_SPLIT_MODE_LAYER, "Layers and KV cache over all GPUs.")
        .value("ROW", LLAMA_SPLIT_MODE_ROW, "Layers and KV cache over all GPUs, tensor parallelism where supported.")
        .value("TENSOR", LLAMA_SPLIT_MODE_TENSOR, "Tensor parallelism.");
    nb::enum_<enum llama_load_mode>(m, "LlamaLoadMode", nb::is_arithmetic(), "How a model file is read.")
        .value("AUTO", LLAMA_LOAD_MODE_AUTO)
        .value("NONE", LLAMA_LOAD_MODE_NONE)
        .value("MMAP", LLAMA_LOAD_MODE_MMAP)
        .value("MLOCK", LLAMA_LOAD_MODE_MLOCK)
        .value("MMAP_MLOCK", LLAMA_LOAD_MODE_MMAP_MLOCK)
        .value("DIRECT_IO", LLAMA_LOAD_MODE_DIRECT_IO);
    nb::enum_<enum llama_context_type>(m, "LlamaContextType", nb::is_arithmetic(), "What a context is for.")
        .value("DEFAULT", LLAMA_CONTEXT_TYPE_DEFAULT)
        .value("MTP", LLAMA_CONTEXT_TYPE_MTP, "Multi-token prediction.");
    nb::enum_<enum llama_rope_scaling_type>(m, "LlamaRopeScalingType", nb::is_arithmetic(), "How RoPE is scaled.")
        .value("UNSPECIFIED", LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED, "As the model says.")
        .value("NONE", LLAMA_ROPE_SCALING_TYPE_NONE)
        .value("LINEAR", LLAMA_ROPE_SCALING_TYPE_LINEAR)
        .value("YARN", LLAMA_ROPE_SCALING_TYPE_YARN)
        .value("LONGROPE", LLAMA_ROPE_SCALING_TYPE_LONGROPE);
    nb::enum_<enum llama_pooling_type>(m, "LlamaPoolingType", nb::is_arithmetic(), "How token embeddings become one.")
        .value("UNSPECIFIED", LLAMA_POOLING_TYPE_UNSPECIFIED, "As the model says.")
        .value("NONE", LLAMA_POOLING_TYPE_NONE)
        .value("MEAN", LLAMA_POOLING_TYPE_MEAN)
        .value("CLS", LLAMA_POOLING_TYPE_CLS)
        .value("LAST", LLAMA_POOLING_TYPE_LAST)
        .value("RANK", LLAMA_POOLING_TYPE_RANK);
    nb::enum_<enum llama_attention_type>(m, "LlamaAttentionType", nb::is_arithmetic(), "What a token attends to.")
        .value("UNSPECIFIED", LLAMA_ATTENTION_TYPE_UNSPECIFIED, "As the model says.")
        .value("CAUSAL", LLAMA_ATTENTION_TYPE_CAUSAL)
        .value("NON_CAUSAL", LLAMA_ATTENTION_TYPE_NON_CAUSAL);
    nb::enum_<enum llama_flash_attn_type>(m, "LlamaFlashAttnType", nb::is_arithmetic(), "When to use flash attention.")
        .value("AUTO", LLAMA_FLASH_ATTN_TYPE_AUTO)
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

static void init_model_params(nb::module_ & m) {
    using P = LlamaModelParams;
    nb::class_<P>(m, "LlamaModelParams", nb::type_slots(model_params_slots),
                  "How to load a model: the fields of llama_model_params, with llama.cpp's defaults.\n\n"
                  ">>> params = LlamaModelParams()\n"
                  ">>> params.n_gpu_layers = 0")
        .def(nb::init<>(), "llama_model_default_params().")
        .def_rw("devices", &P::device_names, "Names of the devices to use (see `devices()`); empty for all of them.")
        .def_rw("tensor_buft_overrides", &P::buffer_overrides,
                "Pairs of a tensor name pattern and the buffer type (such as \"CPU\") to keep these tensors in.")
        .def_rw("n_gpu_layers", &P::n_gpu_layers, "Layers to keep in GPU memory; negative for all.")
        .def_rw("split_mode", &P::split_mode, "How to split the model over several GPUs.")
        .def_rw("load_mode", &P::load_mode, "How to read the file.")
        .def_rw("main_gpu", &P::main_gpu, "The GPU for everything when split_mode is NONE.")
        .def_rw("tensor_split", &P::split, "Proportion of the model for each GPU; empty to decide by free memory.")
        .def_prop_rw(
            "progress_callback", [](const P & p) { return p.on_progress; },
            [](P & p, nb::object value) { p.on_progress = std::move(value); }, nb::for_setter(nb::arg("value").none()),
            nb::for_getter(nb::sig("def progress_callback(self) -> typing.Callable[[float], bool | None] | None")),
            nb::for_setter(
                nb::sig("def progress_callback(self, value: typing.Callable[[float], bool | None] | None) -> None")),
            "Called with the progress from 0.0 to 1.0; returning False stops the load.")
        .def_rw("kv_overrides", &P::overrides, "Metadata values to use instead of the file's.")
        .def_rw("vocab_only", &P::vocab_only, "Load the vocabulary and no weights.")
        .def_rw("check_tensors", &P::check_tensors, "Validate the tensors' data.")
        .def_rw("use_extra_bufts", &P::use_extra_bufts, "Use extra buffer types, for weight repacking.")
        .def_rw("no_host", &P::no_host, "Bypass the host buffer.")
        .def_rw("no_alloc", &P::no_alloc, "Load metadata only and simulate allocations.")
        .def_rw("load_mtp", &P::load_mtp, "Load the layers for multi-token prediction.");
}

static void init_context_params(nb::module_ & m) {
    using P = LlamaContextParams;
    nb::class_<P>(m, "LlamaContextParams", nb::type_slots(context_params_slots),
                  "How to create a context: the fields of llama_context_params, with llama.cpp's defaults.\n\n"
                  ">>> params = LlamaContextParams()\n"
                  ">>> params.n_ctx = 4096")
        .def(nb::init<>(), "llama_context_default_params().")
        .def_rw("n_ctx", &P::n_ctx, "Tokens that fit (llama.cpp pads this to 256); 0 for the training length.")
        .def_rw("n_batch", &P::n_batch, "Most tokens of one decode.")
        .def_rw("n_ubatch", &P::n_ubatch, "Most tokens computed at once.")
        .def_rw("n_seq_max", &P::n_seq_max, "Number of sequences.")
        .def_rw("n_rs_seq", &P::n_rs_seq, "Snapshots of the recurrent state per sequence, for rollback.")
        .def_rw("n_outputs_max", &P::n_outputs_max, "Most outputs of one decode; 0 for n_batch.")
        .def_rw("n_outputs_max_per_seq", &P::n_outputs_max_per_seq, "Most outputs of a sequence; 0 for n_outputs_max.")
        .def_rw("n_threads", &P::n_threads, "Threads for single tokens.")
        .def_rw("n_threads_batch", &P::n_threads_batch, "Threads for batches.")
        .def_rw("ctx_type", &P::ctx_type, "What the context is for.")
        .def_rw("rope_scaling_type", &P::rope_scaling_type, "How RoPE is scaled.")
        .def_rw("pooling_type", &P::pooling_type, "How embeddings are pooled.")
        .def_rw("attention_type", &P::attention_type, "What a token attends to.")
        .def_rw("flash_attn_type", &P::flash_attn_type, "When to use flash attention.")
        .def_rw("rope_freq_base", &P::rope_freq_base, "RoPE base frequency; 0 as in the model.")
        .def_rw("rope_freq_scale", &P::rope_freq_scale, "RoPE frequency scale; 0 as in the model.")
        .def_rw("yarn_ext_factor", &P::yarn_ext_factor, "YaRN extrapolation mix; negative as in the model.")
        .def_rw("yarn_attn_factor", &P::yarn_attn_factor, "YaRN magnitude scale.")
        .def_rw("yarn_beta_fast", &P::yarn_beta_fast, "YaRN low correction dimension.")
        .def_rw("yarn_beta_slow", &P::yarn_beta_slow, "YaRN high correction dimension.")
        .def_rw("yarn_orig_ctx", &P::yarn_orig_ctx, "YaRN original context size.")
        .def_rw("defrag_thold", &P::defrag_thold, "Deprecated by llama.cpp and without effect.")
        .def_prop_rw(
            "cb_eval", [](const P & p) { return p.on_eval; }, [](P & p, nb::object value) { p.on_eval = std::move(value); },
            nb::for_setter(nb::arg("value").none()),
            nb::for_getter(nb::sig("def cb_eval(self) -> typing.Callable[[str, bool], bool] | None")),
            nb::for_setter(nb::sig("def cb_eval(self, value: typing.Callable[[str, bool], bool] | None) -> None")),
            "Called with a tensor's name while the graph is computed: with True to ask whether it is of interest, then, if\n"
            "so, with False when it is computed; returning False then stops the computation. Slow: for debugging.")
        .def_rw("type_k", &P::type_k, "Data type of the K cache.")
        .def_rw("type_v", &P::type_v, "Data type of the V cache.")
        .def_prop_rw(
            "abort_callback", [](const P & p) { return p.on_abort; },
            [](P & p, nb::object value) { p.on_abort = std::move(value); }, nb::for_setter(nb::arg("value").none()),
            nb::for_getter(nb::sig("def abort_callback(self) -> typing.Callable[[], bool] | None")),
            nb::for_setter(nb::sig("def abort_callback(self, value: typing.Callable[[], bool] | None) -> None")),
            "Called between operations of a decode, on the CPU; returning True aborts it. LlamaContext.abort() does the\n"
            "same from another thread and costs nothing.")
        .def_rw("embeddings", &P::embeddings, "Compute embeddings, together with logits.")
        .def_rw("offload_kqv", &P::offload_kqv, "Keep the KV cache, and compute attention, on the GPU.")
        .def_rw("no_perf", &P::no_perf, "Do not measure performance.")
        .def_rw("op_offload", &P::op_offload, "Offload operations on host tensors to a device.")
        .def_rw("swa_full", &P::swa_full, "Full-size cache for sliding-window layers.")
        .def_rw("kv_unified", &P::kv_unified, "One buffer of cells for all sequences.")
        .def_prop_rw(
            "samplers", [](const P & p) { return p.sampler_list; },
            [](P & p, nb::object value) { p.sampler_list = std::move(value); }, nb::for_setter(nb::arg("value").none()),
            nb::for_getter(nb::sig("def samplers(self) -> list[tuple[int, LlamaSampler]] | None")),
            nb::for_setter(nb::sig("def samplers(self, value: list[tuple[int, LlamaSampler]] | None) -> None")),
            "Pairs of a sequence id and a sampler chain to run in the graph [experimental in llama.cpp].")
        .def_prop_rw(
            "ctx_other", [](const P & p) { return p.other_context; },
            [](P & p, nb::object value) { p.other_context = std::move(value); }, nb::for_setter(nb::arg("value").none()),
            nb::for_getter(nb::sig("def ctx_other(self) -> LlamaContext | None")),
            nb::for_setter(nb::sig("def ctx_other(self, value: LlamaContext | None) -> None")),
            "A context to share results with.")
        .def_rw("threadpool_poll", &P::threadpool_poll,
                "How long the context's threads spin before they sleep, 0 to 100 (ggml_threadpool_params.poll).")
        .def_rw("threadpool_prio", &P::threadpool_prio,
                "Priority of the context's threads, -1 (low) to 3 (real time) (ggml_threadpool_params.prio).");
}

void init_params(nb::module_ & m) {
    init_enums(m);
    init_model_params(m);
    init_context_params(m);
}
