// The module cyllama.llama.llama_cpp.
#include <nanobind/nanobind.h>

#ifndef _WIN32
#include <pthread.h>
#endif

#include "context.hpp"
#include "failed_check.hpp"
#include "gil.hpp"
#include "modules.hpp"
#include "sampler.hpp"

namespace {

void init_context_class(nb::module_ & m) {
    nb::class_<LlamaContext> context = init_context(m);
    init_decode(context);
    init_outputs(context);
    init_memory(context);
    init_context_adapters(context);
    init_fit(m, context);
    init_state(m, context);
}

void init_sampler_class(nb::module_ & m) {
    nb::class_<LlamaSampler> sampler = init_sampler(m);
    init_samplers(sampler);
    init_sampling(sampler);
}

// What atexit calls.
void shut_down() {
    begin_shutdown();
    {
        WithoutGil release(false);
        await_computations();
    }
    // A thread that still runs when the interpreter exits keeps what it uses: that is no leak to warn of.
    if (nb::cast<int>(nb::module_::import_("threading").attr("active_count")()) > 1) {
        nb::set_leak_warnings(false);
    }
}

} // namespace

NB_MODULE(llama_cpp, m) {
    m.doc() = R"doc(
        llama.cpp for Python, memory-safe: names and meanings are those of llama.h.

        Every object may be used by any number of threads. What would make llama.cpp end the process raises an exception
        instead. Numbers of tokens and positions are int32.
        )doc";
    init_failed_checks();
    init_exceptions();
    init_logging(m);
    init_backend(m);
    init_enums(m);
    init_params(m);
    init_vocab(m);
    init_model(m);
    init_adapter(m);
    init_projector(m);
    init_batch(m);
    init_context_class(m);
    init_sampler_class(m);
    init_grammar(m);
    init_chat(m);
    nb::module_::import_("atexit").attr("register")(nb::cpp_function(&shut_down));
#ifndef _WIN32
    // In a child of fork(), objects that the parent's threads refer to are never given back: that is no leak to warn of.
    pthread_atfork(nullptr, nullptr, [] { nb::set_leak_warnings(false); });
#endif
}
