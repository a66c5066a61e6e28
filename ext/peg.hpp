// Parsers of answers (PEG), as llama.cpp saves them to JSON text.
#pragma once

#include <string>

#include "peg-parser.h"

/// Loads a parser from JSON text. Throws nb::value_error for text that is no parser, and for a parser that could call itself
/// without a bracket or a brace in between: its recursion would not be bounded by how deep brackets are nested in an answer.
common_peg_arena load_parser(const std::string & text);

/// The grammar (GBNF) of what a parser reads; `lazy`: of its trigger rules only. Throws nb::value_error where load_parser() does,
/// and for a parser with schemas: their grammars belong into the parser, as nodes of type "gbnf".
std::string grammar_of_parser(const std::string & text, bool lazy);
