// Following a grammar through a text, character by character.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar_limit.hpp"
#include "llama-grammar.h" // not of llama.cpp's public API: the rules

/// The rules of a grammar in one array, and what is known of them before any text. Immutable.
class GrammarRules {
  public:
    GrammarRules(const llama_grammar_rules & rules, uint32_t root);

    const llama_grammar_element & operator[](uint32_t position) const { return elements_[position]; }
    uint32_t n_rules() const { return static_cast<uint32_t>(first_alternate_.size() - 1); }
    uint32_t root() const { return root_; }
    /// Whether what began before has come to its end at that position.
    bool is_end(uint32_t position) const {
        return elements_[position].type == LLAMA_GRETYPE_END || elements_[position].type == LLAMA_GRETYPE_ALT;
    }
    /// The positions at which the alternates of a rule begin.
    std::pair<const uint32_t *, const uint32_t *> alternates(uint32_t rule) const {
        return {alternates_.data() + first_alternate_[rule], alternates_.data() + first_alternate_[rule + 1]};
    }
    /// Characters of one class fit the same elements.
    uint32_t class_of(uint32_t character) const;
    /// The first character of a class.
    uint32_t first_of(uint32_t kind) const { return kind == 0 ? 0 : boundaries_[kind - 1]; }
    uint32_t n_classes() const { return static_cast<uint32_t>(boundaries_.size() + 1); }

  private:
    const uint32_t root_;
    std::vector<llama_grammar_element> elements_;
    std::vector<uint32_t> alternates_,
        first_alternate_;              // those of rule i: from first_alternate_[i] to first_alternate_[i + 1]
    std::vector<uint32_t> boundaries_; // the first character of every class but one, sorted
    std::array<uint32_t, 128> ascii_classes_;
};

/// Whether a rule can begin with itself.
bool is_left_recursive(const llama_grammar_rules & rules);

/// A pushdown automaton over all the ways in which a text can be read at once.
///
/// llama.cpp keeps a stack for every way, and there can be exponentially many. Here, stacks that agree share what they agree in:
/// whatever called a rule at the same place of the text is in one frame, which is entered once and returned from once (a
/// graph-structured stack, as generalized LL parsers have it). States that are equal are one state, wherever in the text they
/// come up, and steps from one to the next are remembered.
///
/// What is not remembered costs work, and of that there is a budget: a burst, for a start or a difficult place, and what every
/// token adds to it.
class GrammarMachine {
  public:
    using State = uint32_t;
    static constexpr State kNone = 0;                     // nothing fits
    static constexpr uint64_t kBurst = uint64_t{1} << 22; // steps
    static constexpr uint64_t kPerToken = uint64_t{1} << 18;

    /// Throws GrammarLimit if even the beginning takes too much work.
    explicit GrammarMachine(std::shared_ptr<const GrammarRules> rules);

    /// Before anything of the text.
    State start() const { return start_; }
    /// After one more character. Throws GrammarLimit.
    State step(State state, uint32_t character);
    /// After a token that the grammar names itself, and not by its text. Throws GrammarLimit.
    State step_token(State state, llama_token token);
    /// Where two ways of reading a text led to.
    State either(State a, State b);
    /// Whether the text may end here.
    bool may_end(State state) const;
    /// Whether a character that begins so can be the next one.
    bool may_begin(State state, llama_partial_utf8 partial) const;
    /// Whether tokens can be next that the grammar names itself.
    bool names_tokens(State state) const;
    bool allows_token(State state, llama_token token) const;

    /// Adds to the budget. Frees memory if much is in use, which changes what states are called: returns the new name of
    /// `state`, and sets `renamed` if others are invalid now.
    State next_token(State state, bool & renamed);
    /// A machine in that state, and nothing else of this one.
    std::pair<std::unique_ptr<GrammarMachine>, State> copy(State state) const;

  private:
    struct Item { // where a way of reading goes on: an element, and the frame to return to after its rule
        uint32_t position, frame;
        bool operator==(const Item & other) const { return position == other.position && frame == other.frame; }
        bool operator<(const Item & other) const {
            return position != other.position ? position < other.position : frame < other.frame;
        }
    };
    using Items = std::vector<Item>;
    // Sets of items, each once, by their index.
    class Sets {
      public:
        uint32_t add(const Items & items, bool & is_new); // sorted ones
        const Item * begin(uint32_t set) const { return items_.data() + ends_[set]; }
        const Item * end(uint32_t set) const { return items_.data() + ends_[set + 1]; }
        size_t size() const { return ends_.size() - 1; }
        size_t n_items() const { return items_.size(); }

      private:
        Items items_;
        std::vector<size_t> ends_{0};
        std::unordered_multimap<uint64_t, uint32_t> by_hash_;
    };
    // A frame of the step in progress: rules called at the same place, and who called them.
    struct NewFrame {
        Items callers;
        bool returned = false; // already, without a character
        bool visiting = false;
        uint32_t frame = 0; // once it is known
    };

    static constexpr uint32_t kEnd = UINT32_MAX;           // a position: the end of a rule, or, in the frame 0, of the text
    static constexpr uint32_t kNew = uint32_t{1} << 31;    // frames from here on are of the step in progress
    static constexpr uint32_t kUnknown = UINT32_MAX;       // a step that was not taken yet
    static constexpr size_t kMostMemory = size_t{4} << 20; // items and steps that are remembered

    GrammarMachine(std::shared_ptr<const GrammarRules> rules, uint64_t budget);
    void spend(uint64_t steps);
    uint32_t keep(Sets & sets, const Items & items);
    void begin_step();
    void push(uint32_t position, uint32_t frame);
    void expand(uint32_t rule, uint32_t frame);
    void call(uint32_t rule, Item caller);
    void return_from(uint32_t frame);
    State finish_step();
    uint32_t settle(uint32_t frame);
    bool fits(uint32_t position, uint32_t character, uint32_t & next) const;
    bool fits_any(uint32_t position, uint32_t low, uint32_t high) const;
    uint32_t & remembered(State state, uint32_t character);
    uint32_t copy_frame(const GrammarMachine & from, uint32_t frame, std::unordered_map<uint32_t, uint32_t> & known);

    std::shared_ptr<const GrammarRules> rules_;
    uint64_t budget_;
    Sets states_, frames_; // frame 0 has no callers: after it, the text ends
    State start_ = kNone;
    std::vector<std::unique_ptr<uint32_t[]>> steps_;    // of each state by class, if these are few
    std::unordered_map<uint64_t, uint32_t> many_steps_; // by state and class, if they are many
    size_t n_remembered_ = 0;

    // Of the step in progress.
    std::vector<uint64_t> seen_; // a hash table of items, with the step's number
    std::vector<uint32_t> seen_step_;
    size_t n_seen_ = 0;
    uint32_t step_ = 0;
    Items todo_, result_;
    std::vector<NewFrame> new_frames_;
    size_t n_new_frames_ = 0;
    std::vector<uint32_t> frame_of_rule_, frame_step_; // of each rule
};
