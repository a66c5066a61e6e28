// JSON schemas: llama.cpp's conversion to a grammar, and the references that it cannot follow.
#pragma once

#include <string>

#include "json.h"

/// Throws ValueError for a schema with references that llama.cpp would follow forever.
void check_references(const common_json & schema);

/// The grammar (GBNF) of a schema, from JSON text. Throws ValueError for text that is not a schema. To be called without
/// the GIL.
std::string schema_to_grammar(const std::string & text);
