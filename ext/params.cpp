#include "params.hpp"

#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "modules.hpp"

// Python objects that a parameter object holds may refer back to it: the garbage collector must see them.

static int model_params_traverse(PyObject * self, visitproc visit, void * arg) {
    Py_VISIT(Py_TYPE(self));
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
    Py_VISIT(Py_TYPE(self));
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

static void init_model_params(nb::module_ & m) {
    using P = LlamaModelParams;
    nb::class_<P>(m, "LlamaModelParams", nb::type_slots(model_params_slots),
                  R"doc(
        How to load a model: the fields of llama_model_params, with llama.cpp's defaults.

        Where an attribute is not documented here in full, llama.h documents it.

        >>> params = LlamaModelParams()
        >>> params.n_gpu_layers = 0
        )doc")
        .def(nb::init<>(), "Set all attributes to the defaults (llama_model_default_params).")
        .def_rw("devices", &P::device_names, "Names of the devices to use (see `devices()`); empty: all of them.")
        .def_rw("tensor_buft_overrides", &P::buffer_overrides,
                "Pairs of a regular expression for names of tensors, of at most 1024 bytes, and the buffer type (such as\n"
                "\"CPU\") to keep these tensors in.")
        .def_rw("n_gpu_layers", &P::n_gpu_layers, "Number of layers to keep in GPU memory; negative: all.")
        .def_rw("split_mode", &P::split_mode, "How to split the model over several GPUs.")
        .def_rw("load_mode", &P::load_mode, "How to read the file.")
        .def_rw("main_gpu", &P::main_gpu, "Index of the GPU for the whole model if `split_mode` is NONE.")
        .def_rw("tensor_split", &P::split, "Proportion of the model for each GPU; empty: by free memory.")
        .def_prop_rw(
            "progress_callback", [](const P & p) { return p.on_progress; },
            [](P & p, nb::object value) { p.on_progress = std::move(value); }, nb::for_setter(nb::arg("value").none()),
            nb::for_getter(nb::sig("def progress_callback(self) -> typing.Callable[[float], bool | None] | None")),
            nb::for_setter(
                nb::sig("def progress_callback(self, value: typing.Callable[[float], bool | None] | None) -> None")),
            "Called with the progress, from 0.0 to 1.0. Returning False stops the load.")
        .def_rw("kv_overrides", &P::overrides,
                "Metadata that replaces values of the file; keys and texts have at most 127 bytes.")
        .def_rw("vocab_only", &P::vocab_only, "Load the vocabulary, without the weights.")
        .def_rw("check_tensors", &P::check_tensors, "Check the data of the tensors while they are loaded.")
        .def_rw("use_extra_bufts", &P::use_extra_bufts, "Use extra buffer types, to repack weights.")
        .def_rw("no_host", &P::no_host, "Bypass the host buffer, so that extra buffers can be used.")
        .def_rw("no_alloc", &P::no_alloc,
                "Load metadata only, and simulate allocations; needs load_mode=LlamaLoadMode.NONE.")
        .def_rw("load_mtp", &P::load_mtp, "Load the layers for multi-token prediction.");
}

using C = LlamaContextParams;

static void init_context_sizes(nb::class_<C> & params) {
    params.def(nb::init<>(), "Set all attributes to the defaults (llama_context_default_params).")
        .def_rw("n_ctx", &C::n_ctx,
                "Tokens that fit in the context, padded by llama.cpp to a multiple of 256; 0: the training length.")
        .def_rw("n_batch", &C::n_batch, "Most tokens of one decode().")
        .def_rw("n_ubatch", &C::n_ubatch, "Most tokens that are computed at once; a decode() of more takes several passes.")
        .def_rw("n_seq_max", &C::n_seq_max, "Number of sequences, from 1 to max_parallel_sequences().")
        .def_rw("n_rs_seq", &C::n_rs_seq, "Snapshots of the recurrent state that are kept for each sequence, for rollback.")
        .def_rw("n_outputs_max", &C::n_outputs_max, "Most outputs of one decode(); 0: n_batch.")
        .def_rw("n_outputs_max_per_seq", &C::n_outputs_max_per_seq,
                "Most outputs of one sequence in a decode(); 0: n_outputs_max.")
        .def_rw("n_threads", &C::n_threads, "Threads that compute single tokens.")
        .def_rw("n_threads_batch", &C::n_threads_batch, "Threads that compute batches of tokens.");
}

static void init_context_computation(nb::class_<C> & params) {
    params.def_rw("ctx_type", &C::ctx_type, "What the context computes.")
        .def_rw("rope_scaling_type", &C::rope_scaling_type, "How RoPE is scaled.")
        .def_rw("pooling_type", &C::pooling_type, "How embeddings are pooled.")
        .def_rw("attention_type", &C::attention_type, "Which tokens a token attends to.")
        .def_rw("flash_attn_type", &C::flash_attn_type, "When to use flash attention.")
        .def_rw("rope_freq_base", &C::rope_freq_base, "RoPE base frequency; 0: as the model says.")
        .def_rw("rope_freq_scale", &C::rope_freq_scale, "RoPE frequency scale; 0: as the model says.")
        .def_rw("yarn_ext_factor", &C::yarn_ext_factor, "YaRN extrapolation mix; negative: as the model says.")
        .def_rw("yarn_attn_factor", &C::yarn_attn_factor, "YaRN magnitude scale.")
        .def_rw("yarn_beta_fast", &C::yarn_beta_fast, "YaRN low correction dimension.")
        .def_rw("yarn_beta_slow", &C::yarn_beta_slow, "YaRN high correction dimension.")
        .def_rw("yarn_orig_ctx", &C::yarn_orig_ctx, "YaRN original context size, in tokens.")
        .def_rw("defrag_thold", &C::defrag_thold, "Without effect: deprecated in llama.cpp.");
}

// Long: a list of bindings.
static void init_context_objects(nb::class_<C> & params) {
    params
        .def_prop_rw(
            "cb_eval", [](const C & p) { return p.on_eval; }, [](C & p, nb::object value) { p.on_eval = std::move(value); },
            nb::for_setter(nb::arg("value").none()),
            nb::for_getter(nb::sig("def cb_eval(self) -> typing.Callable[[str, bool], bool] | None")),
            nb::for_setter(nb::sig("def cb_eval(self, value: typing.Callable[[str, bool], bool] | None) -> None")),
            R"doc(
            Called twice for each tensor of the graph, with its name and a bool. Slow: for debugging.

            With True, before the tensor is computed: returning True asks for the second call. With False, after it is
            computed: returning False stops the computation.
            )doc")
        .def_rw("type_k", &C::type_k, "Data type of the K cache.")
        .def_rw("type_v", &C::type_v, "Data type of the V cache.")
        .def_prop_rw(
            "abort_callback", [](const C & p) { return p.on_abort; },
            [](C & p, nb::object value) { p.on_abort = std::move(value); }, nb::for_setter(nb::arg("value").none()),
            nb::for_getter(nb::sig("def abort_callback(self) -> typing.Callable[[], bool] | None")),
            nb::for_setter(nb::sig("def abort_callback(self, value: typing.Callable[[], bool] | None) -> None")),
            R"doc(
            Called between operations of a decode on the CPU. Returning True aborts the decode.

            LlamaContext.abort() does the same from another thread, and costs no time.
            )doc")
        .def_rw("embeddings", &C::embeddings, "Compute embeddings, together with logits.")
        .def_rw("offload_kqv", &C::offload_kqv, "Keep the KV cache, and compute attention, on the GPU.")
        .def_rw("no_perf", &C::no_perf, "Do not measure how long computations take.")
        .def_rw("op_offload", &C::op_offload, "Compute operations on tensors in host memory on a GPU.")
        .def_rw("swa_full", &C::swa_full, "Give layers with a sliding window a cache of the full size.")
        .def_rw("kv_unified", &C::kv_unified, "Use one buffer of cells for all sequences, instead of one for each.")
        .def_prop_rw(
            "samplers", [](const C & p) { return p.sampler_list; },
            [](C & p, nb::object value) { p.sampler_list = std::move(value); }, nb::for_setter(nb::arg("value").none()),
            nb::for_getter(nb::sig("def samplers(self) -> list[tuple[int, LlamaSampler]] | None")),
            nb::for_setter(nb::sig("def samplers(self, value: list[tuple[int, LlamaSampler]] | None) -> None")),
            "Pairs of a sequence id and a sampler chain that runs in the graph of the context. Experimental in llama.cpp.")
        .def_prop_rw(
            "ctx_other", [](const C & p) { return p.other_context; },
            [](C & p, nb::object value) { p.other_context = std::move(value); }, nb::for_setter(nb::arg("value").none()),
            nb::for_getter(nb::sig("def ctx_other(self) -> LlamaContext | None")),
            nb::for_setter(nb::sig("def ctx_other(self, value: LlamaContext | None) -> None")),
            "A context of the same model whose memory this one reads.")
        .def_rw("threadpool_poll", &C::threadpool_poll,
                "How long the context's threads poll for work before they sleep, from 0 (not) to 100\n"
                "(ggml_threadpool_params.poll).")
        .def_rw("threadpool_prio", &C::threadpool_prio,
                "Priority of the context's threads, -1 (low) to 3 (real time) (ggml_threadpool_params.prio).");
}

void init_params(nb::module_ & m) {
    init_model_params(m);
    nb::class_<C> params(m, "LlamaContextParams", nb::type_slots(context_params_slots), R"doc(
        How to create a context: the fields of llama_context_params, with llama.cpp's defaults.

        A context keeps a copy: changing an attribute afterwards does not change the context. Where an attribute is not
        documented here in full, llama.h documents it.

        >>> params = LlamaContextParams()
        >>> params.n_ctx = 4096
        )doc");
    init_context_sizes(params);
    init_context_computation(params);
    init_context_objects(params);
}
