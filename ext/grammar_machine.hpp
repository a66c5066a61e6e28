// Following a grammar through a text, character by character.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar_items.hpp"
#include "grammar_limit.hpp"
#include "grammar_rules.hpp"

/// A pushdown automaton over all the ways in which a text can be read at once.
///
/// llama.cpp keeps a stack for every way, and there can be exponentially many. Here stacks share their common part: all
/// callers of a rule at one place of the text are in one frame, which is entered once and returned from once (a
/// graph-structured stack, as in generalized LL parsing). Equal states are one state, wherever in the text they occur, and
/// steps from one state to the next are stored.
///
/// A step that is not stored costs work, and work has a budget, counted in steps: kBurst at the beginning, and kPerToken
/// more for every token, up to kBurst. The budget also bounds the memory.
class GrammarMachine {
  public:
    using State = uint32_t;
    static constexpr State kNone = 0;                     // the text does not fit the grammar
    static constexpr uint64_t kBurst = uint64_t{1} << 22; // steps
    static constexpr uint64_t kPerToken = uint64_t{1} << 18;

    /// Throws GrammarLimit if the beginning takes too much work.
    explicit GrammarMachine(std::shared_ptr<const GrammarRules> rules);

    /// The state before the text.
    State start() const { return start_; }
    /// The state after one more character (a code point). Throws GrammarLimit.
    State step(State state, uint32_t character);
    /// The state after a token that the grammar names by its id, not by its text. Throws GrammarLimit.
    State step_token(State state, llama_token token);
    /// The state of a text that can be read in two ways.
    State either(State a, State b);
    /// Whether the text may end here.
    bool may_end(State state) const;
    /// Whether the next character can begin with the bytes of `partial`.
    bool may_begin(State state, llama_partial_utf8 partial) const;
    /// Whether the grammar names tokens by id at this place.
    bool names_tokens(State state) const;
    bool allows_token(State state, llama_token token) const;

    /// Adds kPerToken to the budget. Frees the stored states if they take much memory: then sets `renamed`, and all states
    /// become invalid. Returns `state`, under its new number if there is one.
    State next_token(State state, bool & renamed);
    /// A machine with that state and the start, and nothing else of this one.
    std::pair<std::unique_ptr<GrammarMachine>, State> copy(State state) const;

  private:
    using Item = GrammarItem;
    using Items = GrammarItems;
    // A frame of the step in progress: the callers of a rule at this place.
    struct NewFrame {
        Items callers;
        bool returned = false; // an alternate of the rule was empty
        bool visiting = false;
        uint32_t frame = 0; // its number in frames_, once it is known
    };

    static constexpr uint32_t kEnd = UINT32_MAX;           // a position: the end of a rule; in frame 0, the end of the text
    static constexpr uint32_t kNew = uint32_t{1} << 31;    // frames from this number on belong to the step in progress
    static constexpr uint32_t kUnknown = UINT32_MAX;       // a step that is not stored
    static constexpr size_t kMostMemory = size_t{4} << 20; // stored items and steps

    GrammarMachine(std::shared_ptr<const GrammarRules> rules, uint64_t budget);
    void spend(uint64_t steps);
    uint32_t store(GrammarItemSets & sets, const Items & items);
    void begin_step();
    void push(uint32_t position, uint32_t frame);
    void expand(uint32_t rule, uint32_t frame);
    void call(uint32_t rule, Item caller);
    void return_from(uint32_t frame);
    State finish_step();
    uint32_t settle(uint32_t frame);
    bool fits(uint32_t position, uint32_t character, uint32_t & next) const;
    bool fits_any(uint32_t position, uint32_t low, uint32_t high) const;
    uint32_t & stored_step(State state, uint32_t character);
    uint32_t copy_frame(const GrammarMachine & from, uint32_t frame, std::unordered_map<uint32_t, uint32_t> & known);

    std::shared_ptr<const GrammarRules> rules_;
    uint64_t budget_;
    GrammarItemSets states_,
        frames_; // frame 0 has no callers: the text ends there
    State start_ = kNone;
    std::vector<std::unique_ptr<uint32_t[]>> steps_; // of each state, by class of the character, if there are few classes
    std::unordered_map<uint64_t, uint32_t> many_steps_; // by state and class, if there are many classes
    size_t n_stored_steps_ = 0;

    // Of the step in progress.
    GrammarSeenItems seen_;
    Items todo_, result_;
    std::vector<NewFrame> new_frames_;
    size_t n_new_frames_ = 0;
    std::vector<uint32_t> frame_of_rule_,
        frame_step_; // of each rule: its new frame, and the step that made it
};

/// Makes the machine that follows a grammar through a text. Throws ValueError if its beginning takes too much work.
std::unique_ptr<GrammarMachine> make_machine(std::shared_ptr<const GrammarRules> rules);
