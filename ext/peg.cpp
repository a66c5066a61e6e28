#include "peg.hpp"

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <type_traits>
#include <variant>
#include <vector>

#include "big_stack.hpp"
#include "errors.hpp"
#include "json-schema-to-grammar.h"
#include "json_text.hpp"
#include "peg-parser.h"

namespace {

constexpr size_t kDeepestCalls = 100; // nested calls of parsers between two brackets; llama.cpp's own parsers have about 30

bool is_bracket(const common_peg_parser_variant & parser) {
    const auto * literal = std::get_if<common_peg_literal_parser>(&parser);
    return literal != nullptr && (literal->literal == "{" || literal->literal == "[");
}

using Visit = std::function<void(common_peg_parser_id)>;

// Calls `visit` with every parser that `id` calls; without `behind_brackets`, only with those at the same depth of
// brackets.
void visit_calls(const common_peg_arena & arena, common_peg_parser_id id, bool behind_brackets, const Visit & visit) {
    std::visit(
        [&](const auto & parser) {
            using T = std::decay_t<decltype(parser)>;
            if constexpr (std::is_same_v<T, common_peg_sequence_parser>) {
                for (const common_peg_parser_id child : parser.children) {
                    visit(child);
                    if (!behind_brackets && is_bracket(arena.get(child))) {
                        break;
                    }
                }
            } else if constexpr (std::is_same_v<T, common_peg_choice_parser>) {
                std::for_each(parser.children.begin(), parser.children.end(), visit);
            } else if constexpr (std::is_same_v<T, common_peg_repetition_parser> ||
                                 std::is_same_v<T, common_peg_and_parser> || std::is_same_v<T, common_peg_not_parser> ||
                                 std::is_same_v<T, common_peg_schema_parser> || std::is_same_v<T, common_peg_rule_parser> ||
                                 std::is_same_v<T, common_peg_atomic_parser> || std::is_same_v<T, common_peg_tag_parser> ||
                                 std::is_same_v<T, common_peg_gbnf_parser> || std::is_same_v<T, common_peg_ac_parser>) {
                visit(parser.child);
            } else if constexpr (std::is_same_v<T, common_peg_ref_parser>) {
                throw std::invalid_argument("it refers to a rule by its name");
            }
        },
        arena.get(id));
}

void check_children(const common_peg_arena & arena) {
    for (common_peg_parser_id id = 0; id < arena.size(); ++id) {
        visit_calls(arena, id, true, [&](common_peg_parser_id child) { arena.get(child); }); // throws std::out_of_range
    }
}

// Checks how deep the calls of parsers are nested: at the same depth of brackets, or, with `in_rules`, between two rules.
void check_depth(const common_peg_arena & arena, bool in_rules) {
    std::vector<size_t> depths(arena.size(), 0); // 0: not known yet
    std::vector<bool> open(arena.size(), false);
    const std::function<size_t(common_peg_parser_id, size_t)> depth_of = [&](common_peg_parser_id id,
                                                                             size_t above) -> size_t {
        if (open[id] || above > kDeepestCalls) {
            throw std::invalid_argument("it recurses without end, or is nested too deep");
        }
        if (depths[id] == 0) {
            open[id] = true;
            size_t deepest = 0;
            visit_calls(arena, id, in_rules, [&](common_peg_parser_id child) {
                if (!in_rules || !std::holds_alternative<common_peg_rule_parser>(arena.get(child))) {
                    deepest = std::max(deepest, depth_of(child, above + 1));
                }
            });
            open[id] = false;
            depths[id] = deepest + 1;
        }
        if (above + depths[id] > kDeepestCalls) {
            throw std::invalid_argument("it is nested too deep");
        }
        return depths[id];
    };
    for (common_peg_parser_id id = 0; id < arena.size(); ++id) {
        depth_of(id, 0);
    }
}

} // namespace

common_peg_arena load_parser(const std::string & text) {
    const common_json json = parse_json(text, "the parser");
    try {
        common_peg_arena arena = common_peg_arena::from_json(json);
        arena.get(arena.root());
        check_children(arena);
        check_depth(arena, false);
        check_depth(arena, true);
        return arena;
    } catch (const std::exception & error) {
        throw_value_error(std::string("not a parser of answers: ") + error.what());
    }
}

std::string grammar_of_parser(const std::string & text, bool lazy) {
    constexpr size_t kStackPerParser = 4 << 10;
    const common_peg_arena arena = load_parser(text);
    for (common_peg_parser_id id = 0; id < arena.size(); ++id) {
        if (std::holds_alternative<common_peg_schema_parser>(arena.get(id))) {
            throw_value_error("not a parser of answers: it has a schema");
        }
    }
    std::string grammar;
    run_on_big_stack(arena.size() * kStackPerParser + text.size(), [&] {
        grammar = build_grammar([&](const common_grammar_builder & builder) { arena.build_grammar(builder, lazy); });
    });
    return grammar;
}
