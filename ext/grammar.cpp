#include "grammar.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "big_stack.hpp"
#include "guard.hpp"
#include "json-schema-to-grammar.h"
#include "llama-grammar.h" // not of llama.cpp's public API: the parser
#include "model.hpp"
#include "modules.hpp"

// ---------------------------------------------------------------------------------------------------------------- grammar

namespace {

// Whether a rule can begin with itself. llama.cpp looks for that too, but not behind a rule that is empty only because those
// it refers to are, and would then take all of the memory, or abort.
bool is_left_recursive(const llama_grammar_rules & rules) {
    std::vector<bool> empty(rules.size());
    // Calls `visit` with every rule that an alternate of `rule` can begin with; returns whether one of them can be empty.
    const auto beginnings = [&](const llama_grammar_rule & rule, auto && visit) {
        bool at_beginning = true, can_be_empty = false;
        for (const llama_grammar_element & element : rule) {
            if (element.type == LLAMA_GRETYPE_ALT || element.type == LLAMA_GRETYPE_END) {
                can_be_empty = can_be_empty || at_beginning;
                at_beginning = true;
            } else if (at_beginning && element.type == LLAMA_GRETYPE_RULE_REF) {
                visit(element.value);
                at_beginning = empty[element.value];
            } else {
                at_beginning = false;
            }
        }
        return can_be_empty;
    };
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = rules.size(); i-- > 0;) { // rules mostly refer to later ones
            if (!empty[i] && beginnings(rules[i], [](uint32_t) {})) {
                empty[i] = changed = true;
            }
        }
    }
    enum State : char { kNew, kOpen, kDone };
    std::vector<State> states(rules.size(), kNew);
    std::vector<uint32_t> todo;
    for (uint32_t root = 0; root < rules.size(); ++root) {
        todo.push_back(root);
        while (!todo.empty()) {
            const uint32_t rule = todo.back();
            if (states[rule] != kNew) {
                states[rule] = kDone;
                todo.pop_back();
                continue;
            }
            states[rule] = kOpen;
            bool found = false;
            beginnings(rules[rule], [&](uint32_t next) {
                found = found || states[next] == kOpen;
                if (states[next] == kNew) {
                    todo.push_back(next);
                }
            });
            if (found) {
                return true;
            }
        }
    }
    return false;
}

// Whether a repetition {m,n} has n < m, which llama.cpp counts through from 0 to 2^64.
bool has_inverted_repetition(const std::string & text) {
    size_t i = 0;
    const auto skip = [&](char end) {
        while (i < text.size() && text[i] != end) {
            i += text[i] == '\\' && end != '\n' ? 2 : 1;
        }
        ++i;
    };
    const auto number = [&](uint64_t missing) {
        while (i < text.size() && (std::isspace(static_cast<unsigned char>(text[i])) || text[i] == '#')) {
            text[i] == '#' ? skip('\n') : static_cast<void>(++i);
        }
        if (i >= text.size() || text[i] < '0' || text[i] > '9') {
            return missing;
        }
        char * end = nullptr;
        const uint64_t value = std::strtoull(text.c_str() + i, &end, 10);
        i = static_cast<size_t>(end - text.c_str());
        return value;
    };
    while (i < text.size()) {
        const char c = text[i++];
        if (c == '"' || c == '[' || c == '#') {
            skip(c == '"' ? '"' : c == '[' ? ']' : '\n');
        } else if (c == '{') {
            const uint64_t least = number(0);
            number(0); // only the space before a comma
            if (i < text.size() && text[i] == ',') {
                ++i;
                if (number(UINT64_MAX) < least) {
                    return true;
                }
            }
        }
    }
    return false;
}

// What llama_grammar_parser::parse does, which writes to stderr what this throws.
void parse(llama_grammar_parser & parser, const std::string & text) {
    const char * pos = text.c_str();
    while (*pos) {
        if (*pos == '#') {
            pos += std::strcspn(pos, "\r\n");
        } else if (std::strchr(" \t\r\n", *pos)) {
            ++pos;
        } else {
            pos = parser.parse_rule(pos);
        }
    }
    for (const auto & [name, id] : parser.symbol_ids) {
        if (id >= parser.rules.size() || parser.rules[id].empty()) {
            throw std::runtime_error("there is no rule named " + name);
        }
    }
}

} // namespace

size_t with_grammar(const llama_vocab * vocab, const std::string & grammar, const std::string & root, size_t extra,
                    const std::function<void()> & use) {
    constexpr size_t kStackPerByte = 4096;
    if (grammar.rfind("%llguidance", 0) == 0) {
        throw nb::value_error("this build has no llguidance: write the grammar in GBNF");
    }
    if (has_inverted_repetition(grammar)) {
        throw nb::value_error("a repetition {m,n} of the grammar has n < m");
    }
    const size_t stack = grammar.size() * kStackPerByte + extra;
    constexpr size_t kReason = 200; // the parser's ends with all that it has not read
    bool recursive = false, has_root = false;
    std::string failure;
    clear_logged_errors();
    {
        WithoutGil release;
        run_on_big_stack(stack, [&] {
            llama_grammar_parser parser(vocab);
            try {
                parse(parser, grammar);
            } catch (const std::exception & error) {
                failure = error.what();
                return;
            }
            recursive = is_left_recursive(parser.rules);
            has_root = parser.symbol_ids.find(root) != parser.symbol_ids.end();
            if (grammar.empty() || (!recursive && has_root)) {
                use();
            }
        });
    }
    if (grammar.empty()) {
        return stack;
    }
    if (!failure.empty()) {
        throw nb::value_error(valid_utf8("the grammar is not valid GBNF: " + failure.substr(0, kReason)).c_str());
    }
    if (recursive) {
        throw nb::value_error("a rule of the grammar can begin with itself: write it with * or +, or recurse at its end");
    }
    if (!has_root) {
        throw nb::value_error(("the grammar has no rule named " + root).c_str());
    }
    return stack;
}

// ----------------------------------------------------------------------------------------------------------------- schema

namespace {

constexpr size_t kMaxDepth = 1000;
constexpr size_t kMaxSchema = 4 << 20;
constexpr size_t kMaxReferenced = 64 << 20; // llama.cpp copies what a reference refers to

// Calls `visit` with every "$ref" in a document.
void for_each_reference(const common_json & node, const std::function<void(const std::string &)> & visit) {
    if (node.is_array() || node.is_object()) {
        for (const auto & [key, value] : node.items()) {
            if (node.is_object() && key == "$ref") {
                if (!value.is_string()) {
                    throw nb::value_error("a $ref of the schema is no string");
                }
                visit(value.get<std::string>());
            } else {
                for_each_reference(value, visit);
            }
        }
    }
}

// What a local reference refers to, or null.
const common_json * resolve(const common_json & root, const std::string & reference) {
    if (reference.rfind("#/", 0) != 0) {
        return nullptr;
    }
    const common_json * node = &root;
    for (size_t begin = 2; begin <= reference.size();) {
        const size_t end = std::min(reference.find('/', begin), reference.size());
        const std::string key = reference.substr(begin, end - begin);
        if (node->is_object() && node->contains(key)) {
            node = &node->at(key);
        } else if (node->is_array() && !key.empty() && key.size() < 9 &&
                   key.find_first_not_of("0123456789") == std::string::npos && std::stoul(key) < node->size()) {
            node = &node->at(static_cast<size_t>(std::stoul(key)));
        } else {
            return nullptr;
        }
        begin = end + 1;
    }
    return node;
}

} // namespace

void check_references(const common_json & schema) {
    std::set<std::string> references;
    for_each_reference(schema, [&](const std::string & reference) { references.insert(reference); });
    if (!references.empty() && references.size() * schema.dump_safe().size() > kMaxReferenced) {
        throw nb::value_error("the schema has too many references for its size");
    }
    for (const std::string & first : references) {
        std::set<std::string> seen;
        std::string reference = first;
        while (const common_json * target = resolve(schema, reference)) {
            if (!seen.insert(reference).second) {
                throw nb::value_error(("the schema's reference " + first + " leads back to itself").c_str());
            }
            if (!target->is_object() || !target->contains("$ref") || !target->at("$ref").is_string()) {
                break;
            }
            reference = target->at("$ref").get<std::string>();
        }
    }
}

common_json parse_json(const std::string & text, const char * what) {
    if (nesting_depth(text, true) > kMaxDepth) {
        throw nb::value_error(
            (std::string(what) + ": JSON that is nested deeper than " + std::to_string(kMaxDepth)).c_str());
    }
    try {
        return common_json::parse(text);
    } catch (const common_json_error & error) {
        throw nb::value_error(valid_utf8(std::string(what) + ": " + error.what()).c_str());
    }
}

namespace {

nb::str schema_to_grammar(const std::string & text) {
    constexpr size_t kStackPerByte = 4096;
    if (text.size() > kMaxSchema) {
        throw nb::value_error("the schema is larger than 4 MiB");
    }
    std::string grammar;
    {
        WithoutGil release;
        run_on_big_stack(text.size() * kStackPerByte, [&] {
            const common_json schema = parse_json(text, "the schema");
            if (!schema.is_object()) {
                throw nb::value_error("a schema is a JSON object");
            }
            check_references(schema);
            try {
                grammar = json_schema_to_grammar(schema);
            } catch (const std::exception & error) { // of any type, as numbers that do not fit may be
                throw nb::value_error(valid_utf8(std::string("the schema cannot be converted: ") + error.what()).c_str());
            }
        });
    }
    return to_str(grammar);
}

} // namespace

void init_grammar(nb::module_ & m) {
    m.def("json_schema_to_grammar", &schema_to_grammar, nb::arg("schema"),
          "The GBNF grammar of a JSON schema, both as text (json_schema_to_grammar).\n\n"
          "Keywords that llama.cpp does not know are ignored. Raises ValueError for what is no JSON, or no schema, or has\n"
          "references that cannot be resolved.");
    m.def(
        "check_grammar",
        [](const std::string & grammar, const std::string & root) {
            LogDelivery delivery;
            if (grammar.empty()) {
                throw nb::value_error("the grammar is empty");
            }
            with_grammar(nullptr, grammar, root, 0, [] {});
        },
        nb::arg("grammar"), nb::arg("root") = "root", "Raise ValueError, with the reason, for what is no GBNF grammar.");
}
