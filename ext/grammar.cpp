#include "grammar.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "big_stack.hpp"
#include "grammar_machine.hpp"
#include "guard.hpp"
#include "json-schema-to-grammar.h"
#include "model.hpp"
#include "modules.hpp"

// ---------------------------------------------------------------------------------------------------------------- grammar

namespace {

constexpr size_t kMostElements = size_t{1} << 20; // of rules, after repetitions were written out

// What the parser would make of a text: how many elements, and whether a repetition {m,n} has n < m, which it counts through
// from 0 to 2^64.
class Estimate {
  public:
    explicit Estimate(const std::string & text) : text_(text) {
        while (at_ < text_.size()) {
            look_at(text_[at_++]);
        }
    }

    size_t n_elements() const { return n_elements_; }
    bool inverted() const { return inverted_; }

  private:
    static constexpr size_t kMostTimes = 2000; // more, the parser refuses or takes for any number

    void look_at(char c) {
        const size_t begin = at_;
        switch (c) {
            case '"':
                skip('"');
                item(at_ - begin);
                break;
            case '[':
                skip(']');
                item(at_ - begin);
                break;
            case '#': skip('\n'); break;
            case '*':
            case '+':
            case '?': repeat(1, 1); break;
            case '{': {
                const uint64_t least = number(0), most_missing = least;
                number(0); // only the space before a comma
                uint64_t most = most_missing;
                if (at_ < text_.size() && text_[at_] == ',') {
                    ++at_;
                    most = number(UINT64_MAX);
                    inverted_ = inverted_ || most < least;
                }
                repeat(least, most == UINT64_MAX || most > kMostTimes ? least + 1 : most);
                break;
            }
            default:
                if (std::isspace(static_cast<unsigned char>(c)) == 0) {
                    item(1);
                }
        }
    }

    void item(size_t size) {
        size_ = size;
        n_elements_ += size;
    }

    void repeat(uint64_t least, uint64_t most) {
        const size_t times = static_cast<size_t>(std::min<uint64_t>(std::max(least, most), kMostTimes)) + 1;
        size_ = std::min(size_ * times, kMostElements + 1);
        n_elements_ = std::min(n_elements_ + size_, 2 * kMostElements);
    }

    void skip(char end) {
        while (at_ < text_.size() && text_[at_] != end) {
            at_ += text_[at_] == '\\' && end != '\n' ? 2 : 1;
        }
        ++at_;
    }

    uint64_t number(uint64_t missing) {
        while (at_ < text_.size() && (std::isspace(static_cast<unsigned char>(text_[at_])) || text_[at_] == '#')) {
            text_[at_] == '#' ? skip('\n') : static_cast<void>(++at_);
        }
        if (at_ >= text_.size() || text_[at_] < '0' || text_[at_] > '9') {
            return missing;
        }
        char * end = nullptr;
        const uint64_t value = std::strtoull(text_.c_str() + at_, &end, 10);
        at_ = static_cast<size_t>(end - text_.c_str());
        return value;
    }

    const std::string & text_;
    size_t at_ = 0, size_ = 0, n_elements_ = 0; // size_: of what a repetition would repeat
    bool inverted_ = false;
};

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

std::shared_ptr<const GrammarRules> parse_grammar(const llama_vocab * vocab, const std::string & grammar,
                                                  const std::string & root) {
    constexpr size_t kStackPerByte = 4096, kReason = 200; // the parser's reason ends with all that it has not read
    if (grammar.rfind("%llguidance", 0) == 0) {
        throw nb::value_error("this build has no llguidance: write the grammar in GBNF");
    }
    const Estimate estimate(grammar);
    if (estimate.inverted()) {
        throw nb::value_error("a repetition {m,n} of the grammar has n < m");
    }
    if (estimate.n_elements() > kMostElements) {
        throw nb::value_error(("the grammar has more than " + std::to_string(kMostElements) +
                               " elements when its repetitions are written out: repeat rules, not long texts")
                                  .c_str());
    }
    std::shared_ptr<const GrammarRules> rules;
    bool recursive = false;
    std::string failure;
    WithoutGil release;
    run_on_big_stack(grammar.size() * kStackPerByte, [&] { // the parser recurses into brackets
        llama_grammar_parser parser(vocab);
        try {
            parse(parser, grammar);
        } catch (const std::exception & error) {
            failure = error.what();
            return;
        }
        recursive = is_left_recursive(parser.rules);
        const auto found = parser.symbol_ids.find(root);
        if (!recursive && found != parser.symbol_ids.end()) {
            rules = std::make_shared<const GrammarRules>(parser.rules, found->second);
        }
    });
    if (!failure.empty()) {
        throw nb::value_error(valid_utf8("the grammar is not valid GBNF: " + failure.substr(0, kReason)).c_str());
    }
    if (recursive) {
        throw nb::value_error("a rule of the grammar can begin with itself: write it with * or +, or recurse at its end");
    }
    if (!rules) {
        throw nb::value_error(("the grammar has no rule named " + root).c_str());
    }
    return rules;
}

std::unique_ptr<GrammarMachine> make_machine(std::shared_ptr<const GrammarRules> rules) {
    try {
        return std::make_unique<GrammarMachine>(std::move(rules));
    } catch (const GrammarLimit & error) {
        throw nb::value_error(error.what());
    }
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
            auto rules = parse_grammar(nullptr, grammar, root);
            WithoutGil release;
            make_machine(std::move(rules));
        },
        nb::arg("grammar"), nb::arg("root") = "root",
        "Raise ValueError, with the reason, for what is not a GBNF grammar, or takes too much work to begin with.");
}
