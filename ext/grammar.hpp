// Grammars (GBNF), and JSON schemas made into them.
#pragma once

#include <memory>
#include <string>

#include "json.h"
#include "llama.h"

class GrammarMachine;
class GrammarRules;

/// Parses a grammar as llama.cpp does. Throws nb::value_error with the reason where llama.cpp would fail, abort the process or
/// never return. To be called with the GIL, which is released meanwhile.
std::shared_ptr<const GrammarRules> parse_grammar(const llama_vocab * vocab, const std::string & grammar,
                                                  const std::string & root);

/// What follows the grammar through a text. Throws nb::value_error if that takes too much work from the beginning.
std::unique_ptr<GrammarMachine> make_machine(std::shared_ptr<const GrammarRules> rules);

/// Throws nb::value_error for a schema with references that llama.cpp would follow forever.
void check_references(const common_json & schema);

/// Parses JSON, throws nb::value_error if it is none, or nested deeper than llama.cpp's recursions should go. `what` names it.
common_json parse_json(const std::string & text, const char * what);
