// The rules of a grammar, parsed by llama.cpp and prepared for the machine.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "llama-grammar.h" // not of llama.cpp's public API: the rules

/// The rules of a grammar in one array, with classes of characters. Immutable. A position is an index of that array.
class GrammarRules {
  public:
    GrammarRules(const llama_grammar_rules & rules, uint32_t root);

    const llama_grammar_element & operator[](uint32_t position) const { return elements_[position]; }
    uint32_t n_rules() const { return static_cast<uint32_t>(first_alternate_.size() - 1); }
    uint32_t root() const { return root_; }
    /// Whether an alternate of a rule ends at that position.
    bool is_end(uint32_t position) const {
        return elements_[position].type == LLAMA_GRETYPE_END || elements_[position].type == LLAMA_GRETYPE_ALT;
    }
    /// The positions at which the alternates of a rule begin.
    std::pair<const uint32_t *, const uint32_t *> alternates(uint32_t rule) const {
        return {alternates_.data() + first_alternate_[rule], alternates_.data() + first_alternate_[rule + 1]};
    }
    /// The class of a character. Characters of one class fit the same elements.
    uint32_t class_of(uint32_t character) const;
    /// The first character of a class.
    uint32_t first_of(uint32_t kind) const { return kind == 0 ? 0 : boundaries_[kind - 1]; }
    uint32_t n_classes() const { return static_cast<uint32_t>(boundaries_.size() + 1); }

  private:
    const uint32_t root_;
    std::vector<llama_grammar_element> elements_;
    std::vector<uint32_t> alternates_; // positions; those of rule i: from first_alternate_[i] to first_alternate_[i + 1]
    std::vector<uint32_t> first_alternate_;
    std::vector<uint32_t> boundaries_; // the first character of every class except class 0, sorted
    std::array<uint32_t, 128> ascii_classes_;
};

/// Parses a grammar (GBNF) as llama.cpp does. Throws ValueError with the reason where llama.cpp would fail, abort the
/// process or never return. To be called with the GIL, which it releases meanwhile.
std::shared_ptr<const GrammarRules> parse_grammar(const llama_vocab * vocab, const std::string & grammar,
                                                  const std::string & root);
