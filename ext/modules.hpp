// One init function per concept, called by module.cpp in the order in which types refer to each other.
#pragma once

#include <nanobind/nanobind.h>

void init_backend(nanobind::module_ & m);
void init_vocab(nanobind::module_ & m);
void init_model(nanobind::module_ & m);
void init_sampler(nanobind::module_ & m);
void init_grammar(nanobind::module_ & m);
void init_chat(nanobind::module_ & m);
