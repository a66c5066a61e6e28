// Parameters of models and contexts, with the arrays and Python objects that their pointers refer to.
#pragma once

#include <nanobind/nanobind.h>

#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "llama.h"

namespace nb = nanobind;

using MetadataValue = std::variant<bool, int64_t, double, std::string>;

struct LlamaModelParams : llama_model_params {
    LlamaModelParams() : llama_model_params(llama_model_default_params()) {}

    std::vector<std::string> device_names;                             // empty: all
    std::vector<std::pair<std::string, std::string>> buffer_overrides; // tensor pattern, buffer type
    std::vector<float> split;
    std::map<std::string, MetadataValue> overrides;
    nb::object on_progress = nb::none();
};

struct LlamaContextParams : llama_context_params {
    LlamaContextParams() : llama_context_params(llama_context_default_params()) {}

    nb::object sampler_list = nb::none();  // list[tuple[int, LlamaSampler]]
    nb::object on_abort = nb::none();      // Callable[[], bool]
    nb::object on_eval = nb::none();       // Callable[[str, bool], bool]
    nb::object other_context = nb::none(); // LlamaContext
    int threadpool_poll = 50;              // ggml_threadpool_params.poll
    int threadpool_prio = 0;               // ggml_threadpool_params.prio
};
