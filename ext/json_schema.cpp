#include "json_schema.hpp"

#include <functional>
#include <set>
#include <string>

#include "big_stack.hpp"
#include "errors.hpp"
#include "json-schema-to-grammar.h"
#include "json_text.hpp"
#include "text.hpp"

namespace {

constexpr size_t kMaxSchema = 4 << 20;      // bytes
constexpr size_t kMaxReferenced = 64 << 20; // bytes: llama.cpp copies the target of each reference

// Calls `visit` with every "$ref" in a document.
void for_each_reference(const common_json & node, const std::function<void(const std::string &)> & visit) {
    if (node.is_array() || node.is_object()) {
        for (const auto & [key, value] : node.items()) {
            if (node.is_object() && key == "$ref") {
                if (!value.is_string()) {
                    throw_value_error("a $ref of the schema is not a string");
                }
                visit(value.get<std::string>());
            } else {
                for_each_reference(value, visit);
            }
        }
    }
}

// The node that a local reference ("#/...") refers to, or null.
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
        throw_value_error("the schema has too many references for its size");
    }
    for (const std::string & first : references) {
        std::set<std::string> seen;
        std::string reference = first;
        while (const common_json * target = resolve(schema, reference)) {
            if (!seen.insert(reference).second) {
                throw_value_error("the schema's reference " + first + " leads back to itself");
            }
            if (!target->is_object() || !target->contains("$ref") || !target->at("$ref").is_string()) {
                break;
            }
            reference = target->at("$ref").get<std::string>();
        }
    }
}

std::string schema_to_grammar(const std::string & text) {
    constexpr size_t kStackPerByte = 4096;
    if (text.size() > kMaxSchema) {
        throw_value_error("the schema is larger than 4 MiB");
    }
    std::string grammar;
    run_on_big_stack(text.size() * kStackPerByte, [&] {
        const common_json schema = parse_json(text, "the schema");
        if (!schema.is_object()) {
            throw_value_error("a schema must be a JSON object");
        }
        check_references(schema);
        try {
            grammar = json_schema_to_grammar(schema);
        } catch (const std::exception & error) { // of any type: numbers out of range throw std::out_of_range
            throw_value_error(valid_utf8(std::string("the schema cannot be converted: ") + error.what()));
        }
    });
    return grammar;
}
