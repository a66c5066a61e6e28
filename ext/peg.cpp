#include "peg.hpp"

#include <nanobind/nanobind.h>

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <type_traits>
#include <variant>
#include <vector>

#include "grammar.hpp"

namespace nb = nanobind;

namespace {

constexpr size_t kDeepestCalls = 100; // of parsers between two brackets; llama.cpp's own have about 30

bool is_bracket(const common_peg_parser_variant & parser) {
    const auto * literal = std::get_if<common_peg_literal_parser>(&parser);
    return literal != nullptr && (literal->literal == "{" || literal->literal == "[");
}

// Calls `visit` with every parser that `id` calls at the same depth of brackets.
void visit_calls(const common_peg_arena & arena, common_peg_parser_id id,
                 const std::function<void(common_peg_parser_id)> & visit) {
    std::visit(
        [&](const auto & parser) {
            using T = std::decay_t<decltype(parser)>;
            if constexpr (std::is_same_v<T, common_peg_sequence_parser>) {
                for (const common_peg_parser_id child : parser.children) {
                    visit(child);
                    if (is_bracket(arena.get(child))) {
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

// Every child of every parser, also behind brackets, has to exist.
void check_children(const common_peg_arena & arena) {
    for (common_peg_parser_id id = 0; id < arena.size(); ++id) {
        if (const auto * sequence = std::get_if<common_peg_sequence_parser>(&arena.get(id))) {
            for (const common_peg_parser_id child : sequence->children) {
                arena.get(child); // throws std::out_of_range
            }
        }
        visit_calls(arena, id, [&](common_peg_parser_id child) { arena.get(child); });
    }
}

void check_depth(const common_peg_arena & arena) {
    std::vector<size_t> depths(arena.size(), 0); // 0: not known yet
    std::vector<bool> open(arena.size(), false);
    const std::function<size_t(common_peg_parser_id, size_t)> depth_of = [&](common_peg_parser_id id,
                                                                             size_t above) -> size_t {
        if (open[id] || above > kDeepestCalls) {
            throw std::invalid_argument("it recurses without a bracket, or is nested too deep");
        }
        if (depths[id] == 0) {
            open[id] = true;
            size_t deepest = 0;
            visit_calls(arena, id,
                        [&](common_peg_parser_id child) { deepest = std::max(deepest, depth_of(child, above + 1)); });
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
    try {
        common_peg_arena arena = common_peg_arena::from_json(parse_json(text, "the parser"));
        arena.get(arena.root());
        check_children(arena);
        check_depth(arena);
        return arena;
    } catch (const nb::builtin_exception &) { // of parse_json
        throw;
    } catch (const std::exception & error) {
        throw nb::value_error((std::string("no parser of answers: ") + error.what()).c_str());
    }
}
