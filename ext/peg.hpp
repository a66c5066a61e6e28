// Parsers of answers (PEG), which llama.cpp saves as JSON text.
#pragma once

#include <string>

class common_peg_arena;

/// Loads a parser from JSON text. Throws ValueError for text that is not a parser, and for a parser that could call itself
/// without a bracket or a brace in between: then the nesting of brackets in an answer would not bound its recursion.
common_peg_arena load_parser(const std::string & text);

/// The grammar (GBNF) of the texts that a parser reads; `lazy`: of its trigger rules only. Throws ValueError where
/// load_parser() does, and for a parser with schemas: a schema's grammar belongs into the parser, as a node of type "gbnf".
std::string grammar_of_parser(const std::string & text, bool lazy);
