// The limit on the work of a grammar.
#pragma once

#include <stdexcept>

/// Thrown where following a grammar would take more work than its budget allows.
struct GrammarLimit : std::runtime_error {
    using std::runtime_error::runtime_error;
};
