// What makes the Python module: one function per concept, defined in the .cpp file of that name. module.cpp calls them in
// the order in which types refer to each other.
#pragma once

#include <nanobind/nanobind.h>

namespace nb = nanobind;

struct LlamaContext;
struct LlamaSampler;

void init_exceptions();
void init_logging(nb::module_ & m);
void init_backend(nb::module_ & m);
void init_enums(nb::module_ & m);
void init_params(nb::module_ & m);
void init_vocab(nb::module_ & m);
void init_model(nb::module_ & m);
void init_adapter(nb::module_ & m);
void init_projector(nb::module_ & m);
void init_batch(nb::module_ & m);

nb::class_<LlamaContext> init_context(nb::module_ & m);
void init_decode(nb::class_<LlamaContext> & context);
void init_outputs(nb::class_<LlamaContext> & context);
void init_memory(nb::class_<LlamaContext> & context);
void init_context_adapters(nb::class_<LlamaContext> & context);
void init_fit(nb::module_ & m, nb::class_<LlamaContext> & context);
void init_state(nb::module_ & m, nb::class_<LlamaContext> & context);

nb::class_<LlamaSampler> init_sampler(nb::module_ & m);
void init_samplers(nb::class_<LlamaSampler> & sampler);
void init_sampling(nb::class_<LlamaSampler> & sampler);

void init_grammar(nb::module_ & m);
void init_chat(nb::module_ & m);
