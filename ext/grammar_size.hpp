// How large a grammar becomes when llama.cpp parses it.
#pragma once

#include <cstddef>
#include <string>

/// Most elements of a grammar's rules, after repetitions are written out.
constexpr size_t kMostGrammarElements = size_t{1} << 20;

struct GrammarSize {
    size_t n_elements; // an estimate
    bool inverted;     // a repetition {m,n} has n < m: the parser would count through it, from 0 to 2^64
};

/// Estimates the size of a grammar from its text (GBNF), without parsing it.
GrammarSize estimate_grammar_size(const std::string & text);
