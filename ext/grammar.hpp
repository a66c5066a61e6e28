// Grammars (GBNF), and JSON schemas made into them.
#pragma once

#include <functional>
#include <string>

#include "json.h"
#include "llama.h"

/// Parses a grammar as llama.cpp does, and then calls `use` on the same thread, whose stack is large enough to parse it again;
/// `extra` bytes are added to it. Throws nb::value_error with the reason where llama.cpp would fail, abort the process or
/// never return. To be called with the GIL, which is released meanwhile. Returns the size of that stack.
size_t with_grammar(const llama_vocab * vocab, const std::string & grammar, const std::string & root, size_t extra,
                    const std::function<void()> & use);

/// Throws nb::value_error for a schema with references that llama.cpp would follow forever.
void check_references(const common_json & schema);

/// Parses JSON, throws nb::value_error if it is none, or nested deeper than llama.cpp's recursions should go. `what` names it.
common_json parse_json(const std::string & text, const char * what);
