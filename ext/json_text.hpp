// JSON text from Python, and how deep it is nested.
#pragma once

#include <cstddef>
#include <string>

#include "json.h"

/// How deep brackets and braces are nested in `text`; `json`: those in its strings do not count.
size_t nesting_depth(const std::string & text, bool json);

/// Parses JSON. Throws ValueError for text that is not JSON, and for JSON nested deeper than llama.cpp's recursions should
/// go. `what` names the text in the message.
common_json parse_json(const std::string & text, const char * what);
