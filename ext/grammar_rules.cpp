#include "grammar_rules.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "big_stack.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "grammar_size.hpp"
#include "text.hpp"

GrammarRules::GrammarRules(const llama_grammar_rules & rules, uint32_t root) : root_(root), ascii_classes_{} {
    for (const llama_grammar_rule & rule : rules) {
        first_alternate_.push_back(static_cast<uint32_t>(alternates_.size()));
        bool at_beginning = true;
        for (const llama_grammar_element & element : rule) {
            if (at_beginning) {
                alternates_.push_back(static_cast<uint32_t>(elements_.size()));
            }
            at_beginning = element.type == LLAMA_GRETYPE_ALT;
            elements_.push_back(element);
        }
    }
    first_alternate_.push_back(static_cast<uint32_t>(alternates_.size()));
    for (const llama_grammar_element & element : elements_) {
        switch (element.type) {
            case LLAMA_GRETYPE_CHAR:
            case LLAMA_GRETYPE_CHAR_NOT:
            case LLAMA_GRETYPE_CHAR_ALT:
            case LLAMA_GRETYPE_CHAR_RNG_UPPER: // its lower end is an element of its own
                boundaries_.push_back(element.value);
                boundaries_.push_back(element.value + 1);
                break;
            default: break;
        }
    }
    std::sort(boundaries_.begin(), boundaries_.end());
    boundaries_.erase(std::unique(boundaries_.begin(), boundaries_.end()), boundaries_.end());
    for (uint32_t character = 0; character < ascii_classes_.size(); ++character) {
        ascii_classes_[character] = static_cast<uint32_t>(
            std::upper_bound(boundaries_.begin(), boundaries_.end(), character) - boundaries_.begin());
    }
}

uint32_t GrammarRules::class_of(uint32_t character) const {
    if (character < ascii_classes_.size()) {
        return ascii_classes_[character];
    }
    return static_cast<uint32_t>(std::upper_bound(boundaries_.begin(), boundaries_.end(), character) - boundaries_.begin());
}

namespace {

// Calls `visit` with every rule that `rule` can begin with.
template <class Visit>
void for_each_beginning(const llama_grammar_rule & rule, const std::vector<bool> & empty, Visit && visit) {
    bool at_beginning = true;
    for (const llama_grammar_element & element : rule) {
        if (element.type == LLAMA_GRETYPE_ALT || element.type == LLAMA_GRETYPE_END) {
            at_beginning = true;
        } else if (at_beginning && element.type == LLAMA_GRETYPE_RULE_REF) {
            visit(element.value);
            at_beginning = empty[element.value];
        } else {
            at_beginning = false;
        }
    }
}

// Which rules can stand for the empty text: those with an alternate all of whose parts can.
class EmptyRules {
  public:
    explicit EmptyRules(const llama_grammar_rules & rules) : users_(rules.size()), empty_(rules.size()) {
        for (uint32_t rule = 0; rule < rules.size(); ++rule) {
            add_alternates(rule, rules[rule]);
        }
        while (!todo_.empty()) {
            const uint32_t rule = todo_.back();
            todo_.pop_back();
            for (const size_t user : users_[rule]) {
                --alternates_[user].n_missing;
                note_if_empty(alternates_[user]);
            }
        }
    }

    const std::vector<bool> & result() const { return empty_; }

  private:
    struct Alternate {
        uint32_t rule;
        size_t n_missing; // parts that are not known to be empty
    };

    void add_alternates(uint32_t rule, const llama_grammar_rule & elements) {
        alternates_.push_back({rule, 0});
        for (const llama_grammar_element & element : elements) {
            if (element.type == LLAMA_GRETYPE_ALT || element.type == LLAMA_GRETYPE_END) {
                note_if_empty(alternates_.back());
                alternates_.push_back({rule, 0});
            } else {
                ++alternates_.back().n_missing;
                if (element.type == LLAMA_GRETYPE_RULE_REF) {
                    users_[element.value].push_back(alternates_.size() - 1);
                }
            }
        }
    }

    void note_if_empty(const Alternate & alternate) {
        if (alternate.n_missing == 0 && !empty_[alternate.rule]) {
            empty_[alternate.rule] = true;
            todo_.push_back(alternate.rule);
        }
    }

    std::vector<Alternate> alternates_;
    std::vector<std::vector<size_t>> users_; // of each rule: the alternates that refer to it, once for each reference
    std::vector<bool> empty_;
    std::vector<uint32_t> todo_; // empty rules whose users were not told
};

// Whether a rule can begin with itself, directly or through other rules.
bool is_left_recursive(const llama_grammar_rules & rules) {
    const EmptyRules empty(rules);
    enum State : char { kUnseen, kOpen, kDone };
    std::vector<State> states(rules.size(), kUnseen);
    std::vector<uint32_t> todo;
    for (uint32_t root = 0; root < rules.size(); ++root) {
        todo.push_back(root);
        while (!todo.empty()) {
            const uint32_t rule = todo.back();
            if (states[rule] != kUnseen) {
                states[rule] = kDone;
                todo.pop_back();
                continue;
            }
            states[rule] = kOpen;
            bool found = false;
            for_each_beginning(rules[rule], empty.result(), [&](uint32_t next) {
                found = found || states[next] == kOpen;
                if (states[next] == kUnseen) {
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

// The same as llama_grammar_parser::parse, which writes the error to stderr instead of throwing it.
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

struct Parsed {
    std::shared_ptr<const GrammarRules> rules; // null if there is no root, or a failure
    bool left_recursive = false;
    std::string failure; // the parser's reason
};

Parsed parse_on_big_stack(const llama_vocab * vocab, const std::string & grammar, const std::string & root) {
    constexpr size_t kStackPerByte = 4096;
    Parsed result;
    run_on_big_stack(grammar.size() * kStackPerByte, [&] { // the parser recurses into brackets
        llama_grammar_parser parser(vocab);
        try {
            parse(parser, grammar);
        } catch (const std::exception & error) {
            result.failure = error.what();
            return;
        }
        result.left_recursive = is_left_recursive(parser.rules);
        const auto found = parser.symbol_ids.find(root);
        if (!result.left_recursive && found != parser.symbol_ids.end()) {
            result.rules = std::make_shared<const GrammarRules>(parser.rules, found->second);
        }
    });
    return result;
}

} // namespace

std::shared_ptr<const GrammarRules> parse_grammar(const llama_vocab * vocab, const std::string & grammar,
                                                  const std::string & root) {
    constexpr size_t kReason = 200; // bytes: the parser's reason ends with all the text that it has not read
    if (grammar.rfind("%llguidance", 0) == 0) {
        throw_value_error("this build has no llguidance: write the grammar in GBNF");
    }
    const GrammarSize size = estimate_grammar_size(grammar);
    if (size.inverted) {
        throw_value_error("a repetition {m,n} of the grammar has n < m");
    }
    if (size.n_elements > kMostGrammarElements) {
        throw_value_error("the grammar has more than " + std::to_string(kMostGrammarElements) +
                          " elements when its repetitions are written out: repeat rules, not long texts");
    }
    WithoutGil release;
    Parsed parsed = parse_on_big_stack(vocab, grammar, root);
    if (!parsed.failure.empty()) {
        throw_value_error(valid_utf8("the grammar is not valid GBNF: " + parsed.failure.substr(0, kReason)));
    }
    if (parsed.left_recursive) {
        throw_value_error("a rule of the grammar can begin with itself: write it with * or +, or recurse at its end");
    }
    if (!parsed.rules) {
        throw_value_error("the grammar has no rule named " + root);
    }
    return std::move(parsed.rules);
}
