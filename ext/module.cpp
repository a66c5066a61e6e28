#include <nanobind/nanobind.h>

#include "adapter.hpp"
#include "batch.hpp"
#include "context.hpp"
#include "failed_check.hpp"
#include "logging.hpp"
#include "model.hpp"
#include "modules.hpp"
#include "params.hpp"

NB_MODULE(llama_cpp, m) {
    m.doc() = "llama.cpp, bound thin, exact and memory-safe: names and meanings are those of llama.h.";
    init_failed_checks();
    init_exceptions();
    init_logging(m);
    init_backend(m);
    init_params(m);
    init_vocab(m);
    init_model(m);
    init_adapter(m);
    init_batch(m);
    init_context(m);
    init_sampler(m);
    init_grammar(m);
    init_chat(m);
    // A thread that still runs when the interpreter exits keeps what it uses: that is no leak to warn of.
    nb::module_::import_("atexit").attr("register")(nb::cpp_function([] {
        end_computations();
        if (nb::cast<int>(nb::module_::import_("threading").attr("active_count")()) > 1) {
            nb::set_leak_warnings(false);
        }
    }));
}
