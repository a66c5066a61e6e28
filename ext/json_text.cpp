#include "json_text.hpp"

#include <algorithm>

#include "errors.hpp"
#include "text.hpp"

size_t nesting_depth(const std::string & text, bool json) {
    size_t depth = 0, deepest = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (json && c == '"') {
            quoted = !quoted;
        } else if (quoted) {
            i += c == '\\' ? 1 : 0;
        } else if (c == '[' || c == '{') {
            deepest = std::max(deepest, ++depth);
        } else if ((c == ']' || c == '}') && depth) {
            --depth;
        }
    }
    return deepest;
}

common_json parse_json(const std::string & text, const char * what) {
    constexpr size_t kMaxDepth = 1000;
    if (nesting_depth(text, true) > kMaxDepth) {
        throw_value_error(std::string(what) + ": JSON that is nested deeper than " + std::to_string(kMaxDepth));
    }
    try {
        return common_json::parse(text);
    } catch (const common_json_error & error) {
        throw_value_error(valid_utf8(std::string(what) + ": " + error.what()));
    }
}
