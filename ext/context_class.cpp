// The Python class LlamaContext: its life, and what it is made of.
#include "context.hpp"
#include "context_limits.hpp"
#include "modules.hpp"
#include "params.hpp"

namespace {

// Callbacks and samplers may refer back to the context: the garbage collector must see them.

int traverse(PyObject * self, visitproc visit, void * arg) {
    Py_VISIT(Py_TYPE(self));
    if (nb::inst_ready(self)) {
        Py_VISIT(nb::inst_ptr<LlamaContext>(self)->params.ptr());
    }
    return 0;
}

int clear(PyObject * self) {
    auto * context = nb::inst_ptr<LlamaContext>(self);
    if (nb::inst_ready(self)) {
        context->handle->on_abort = nullptr;
        context->handle->on_eval = nullptr;
        context->params = nb::none();
    }
    return 0;
}

PyType_Slot slots[] = {
    {Py_tp_traverse, reinterpret_cast<void *>(traverse)},
    {Py_tp_clear, reinterpret_cast<void *>(clear)},
    {0, nullptr},
};

void close_context(LlamaContext & self) {
    if (self.handle->forked()) {
        return; // the memory belongs to the parent, and the threads do not exist here
    }
    const auto handle = self.handle; // outlives the guard
    Guard guard(*handle, "context");
    WithoutGil release;
    if (handle->context) {
        handle->free();
    }
}

bool context_is_closed(const LlamaContext & self) {
    Guard guard(*self.handle, "context");
    return self.handle->context == nullptr;
}

nb::str context_repr(nb::object self) {
    const auto & context = nb::cast<const LlamaContext &>(self);
    Guard guard(*context.handle, "context");
    llama_context * c = context.handle->context;
    return c ? nb::str("<LlamaContext n_ctx={} n_seq_max={}>").format(llama_n_ctx(c), llama_n_seq_max(c))
             : nb::str("<LlamaContext (closed)>");
}

void set_n_threads(const LlamaContext & self, int32_t n_threads, int32_t n_threads_batch) {
    ContextUse use(self);
    check_n_threads("n_threads", n_threads);
    check_n_threads("n_threads_batch", n_threads_batch);
    WithoutGil release;
    check_threads_available(n_threads, n_threads_batch);
    use->threadpools.attach(use.get(), n_threads, n_threads_batch);
}

void pause_threads(const LlamaContext & self) {
    ContextUse use(self);
    use->threadpools.pause();
}

void set_embeddings(const LlamaContext & self, bool embeddings) {
    ContextUse use(self);
    check_embeddings(embeddings, use->n_outputs_max, llama_n_ubatch(use.get()));
    use->embeddings = embeddings;
    llama_set_embeddings(use.get(), embeddings);
}

void set_causal_attn(const LlamaContext & self, bool causal_attn) {
    ContextUse use(self);
    use->causal = causal_attn;
    llama_set_causal_attn(use.get(), causal_attn);
}

// A property that reads one value of the context.
template <auto function> auto context_value() {
    return [](const LlamaContext & self) { return function(ContextUse(self).get()); };
}

void init_life(nb::class_<LlamaContext> & context) {
    context
        .def("__init__", &create_context, nb::arg("model"), nb::arg("params") = nb::none(),
             nb::sig("def __init__(self, model: LlamaModel, params: LlamaContextParams | None = None) -> None"), R"doc(
            Create a context (llama_init_from_model), with a persistent pool of `n_threads` threads of its own.

            Args:
                model: The model.
                params: How to create it; llama.cpp's defaults if None.

            Raises:
                ValueError: A parameter is out of range.
                MemoryError: The KV cache is larger than the machine's memory.
                RuntimeError: llama.cpp cannot create it, with the reason.
            )doc")
        .def("close", &close_context, R"doc(
            Free the KV cache, the buffers and the threads at once (llama_free).

            Waits for a decode in another thread. Closing a closed context does nothing; every other use of it raises
            RuntimeError.
            )doc")
        .def_prop_ro("closed", &context_is_closed, "Whether it, or its model, was closed.")
        .def(
            "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> LlamaContext"))
        .def(
            "__exit__", [](nb::object self, nb::args) { self.attr("close")(); },
            nb::sig("def __exit__(self, *args: object) -> None"))
        .def("__repr__", &context_repr);
}

void init_properties(nb::class_<LlamaContext> & context) {
    context
        .def_prop_ro("n_ctx", context_value<llama_n_ctx>(),
                     "Tokens that fit in all sequences, padded by llama.cpp (llama_n_ctx).")
        .def_prop_ro("n_ctx_seq", context_value<llama_n_ctx_seq>(), "Tokens that fit in one sequence (llama_n_ctx_seq).")
        .def_prop_ro("n_batch", context_value<llama_n_batch>(), "Most tokens of one decode() (llama_n_batch).")
        .def_prop_ro("n_ubatch", context_value<llama_n_ubatch>(), "Most tokens that are computed at once (llama_n_ubatch).")
        .def_prop_ro("n_seq_max", context_value<llama_n_seq_max>(), "Number of sequences (llama_n_seq_max).")
        .def_prop_ro("n_rs_seq", context_value<llama_n_rs_seq>(),
                     "Snapshots of the recurrent state that are kept for each sequence (llama_n_rs_seq).")
        .def_prop_ro("n_threads", context_value<llama_n_threads>(), "Threads that compute single tokens (llama_n_threads).")
        .def_prop_ro("n_threads_batch", context_value<llama_n_threads_batch>(),
                     "Threads that compute batches of tokens (llama_n_threads_batch).")
        .def_prop_ro("pooling_type", context_value<llama_pooling_type>(), "How embeddings are pooled (llama_pooling_type).")
        .def_prop_ro(
            "has_memory", [](const LlamaContext & self) { return llama_get_memory(ContextUse(self).get()) != nullptr; },
            "Whether it keeps what it decoded. The context of a model that only makes embeddings does not.");
}

void init_settings(nb::class_<LlamaContext> & context) {
    context
        .def("set_n_threads", &set_n_threads, nb::arg("n_threads"), nb::arg("n_threads_batch"), R"doc(
            Replace the context's threads (llama_set_n_threads).

            Args:
                n_threads: Threads that compute single tokens.
                n_threads_batch: Threads that compute batches of tokens.

            Raises:
                ValueError: A number is out of range.
                RuntimeError: The system cannot start so many threads.
            )doc")
        .def("pause_threads", &pause_threads, R"doc(
            Let the context's threads sleep until its next computation (ggml_threadpool_pause).

            They would stay awake for a while, as `threadpool_poll` says, and take time from another context's threads.
            )doc")
        .def("set_embeddings", &set_embeddings, nb::arg("embeddings"), R"doc(
            Choose whether decode() computes embeddings (llama_set_embeddings).

            Raises:
                ValueError: The context has no space for the outputs of `n_ubatch` tokens.
            )doc")
        .def("set_causal_attn", &set_causal_attn, nb::arg("causal_attn"),
             "Choose whether a token attends to earlier ones only (llama_set_causal_attn).")
        .def(
            "synchronize",
            [](const LlamaContext & self) {
                ContextUse use(self);
                WithoutGil release;
                llama_synchronize(use.get());
            },
            "Wait until all computations are finished (llama_synchronize). Methods that read outputs do this themselves.")
        .def(
            "abort", [](const LlamaContext & self) { self.handle->abort.store(true); }, R"doc(
            Abort the decode that runs in another thread, on the CPU, and every later one, until clear_abort().

            An aborted decode returns 2. This method never waits.
            )doc")
        .def(
            "clear_abort", [](const LlamaContext & self) { self.handle->abort.store(false); },
            "Let decodes run again after abort().");
}

} // namespace

nb::class_<LlamaContext> init_context(nb::module_ & m) {
    nb::class_<LlamaContext> context(m, "LlamaContext", nb::type_slots(slots), R"doc(
        A KV cache and the threads that compute with it (llama_context).

        Any number of threads may use a context: they wait for each other. The GIL is released while it computes. A context
        keeps its model in memory. It is a context manager that closes itself.

        >>> context = LlamaContext(model)
        >>> batch = LlamaBatch(512)
        >>> batch.add_sequence(model.vocab.tokenize("Hello"))
        >>> context.decode(batch)
        0
        >>> token = LlamaSampler.greedy().sample(context)
        )doc");
    init_life(context);
    init_properties(context);
    init_settings(context);
    return context;
}
