#include "grammar_machine.hpp"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>

#include "errors.hpp"

// Whether an element is a token that the grammar names by its id.
static bool is_token(const llama_grammar_element & element) {
    return element.type == LLAMA_GRETYPE_TOKEN || element.type == LLAMA_GRETYPE_TOKEN_NOT;
}

GrammarMachine::GrammarMachine(std::shared_ptr<const GrammarRules> rules, uint64_t budget)
    : rules_(std::move(rules)), budget_(budget), frame_of_rule_(rules_->n_rules()), frame_step_(rules_->n_rules()) {
    bool is_new = false;
    states_.add({}, is_new); // kNone
    frames_.add({}, is_new);
}

GrammarMachine::GrammarMachine(std::shared_ptr<const GrammarRules> rules) : GrammarMachine(std::move(rules), kBurst) {
    begin_step();
    expand(rules_->root(), 0);
    start_ = finish_step();
}

void GrammarMachine::spend(uint64_t steps) {
    if (steps > budget_) {
        throw GrammarLimit(
            "too many ways of reading a text fit the grammar: to follow them takes more than " + std::to_string(kBurst) +
            " steps at once, or " + std::to_string(kPerToken) +
            " for every token. Write alternatives so that they begin differently, and repetitions with * or + "
            "instead of many optional parts");
    }
    budget_ -= steps;
}

// Stores a set. Its memory costs as much as work does.
uint32_t GrammarMachine::store(GrammarItemSets & sets, const Items & items) {
    constexpr uint64_t kPerSet = 8;
    bool is_new = false;
    const uint32_t set = sets.add(items, is_new);
    spend(is_new ? kPerSet : 1);
    return set;
}

void GrammarMachine::begin_step() {
    if (seen_.begin_step()) {
        std::fill(frame_step_.begin(), frame_step_.end(), 0);
    }
    n_new_frames_ = 0;
    todo_.clear();
    result_.clear();
}

// Goes on at a position, once for each frame.
void GrammarMachine::push(uint32_t position, uint32_t frame) {
    const Item item{rules_->is_end(position) ? kEnd : position, frame};
    if (seen_.add(item)) {
        todo_.push_back(item);
    }
}

void GrammarMachine::expand(uint32_t rule, uint32_t frame) {
    const auto [first, last] = rules_->alternates(rule);
    spend(static_cast<uint64_t>(last - first));
    for (const uint32_t * position = first; position != last; ++position) {
        push(*position, frame);
    }
}

void GrammarMachine::call(uint32_t rule, Item caller) {
    if (rules_->is_end(caller.position)) { // a tail call: return to the frame that the caller would return to
        expand(rule, caller.frame);
        return;
    }
    if (frame_step_[rule] == seen_.step()) {
        NewFrame & frame = new_frames_[frame_of_rule_[rule]];
        frame.callers.push_back(caller);
        if (frame.returned) {
            push(caller.position, caller.frame);
        }
        return;
    }
    if (n_new_frames_ == new_frames_.size()) {
        new_frames_.emplace_back();
    }
    const auto index = static_cast<uint32_t>(n_new_frames_++);
    NewFrame & frame = new_frames_[index];
    frame.callers.assign(1, caller);
    frame.returned = frame.visiting = false;
    frame.frame = 0;
    frame_of_rule_[rule] = index;
    frame_step_[rule] = seen_.step();
    expand(rule, kNew + index);
}

void GrammarMachine::return_from(uint32_t frame) {
    if (frame == 0) {
        result_.push_back({kEnd, 0});
        return;
    }
    if (frame < kNew) {
        spend(static_cast<uint64_t>(frames_.end(frame) - frames_.begin(frame)));
        for (const Item * caller = frames_.begin(frame); caller != frames_.end(frame); ++caller) {
            push(caller->position, caller->frame);
        }
        return;
    }
    NewFrame & returned = new_frames_[frame - kNew];
    returned.returned = true;
    spend(returned.callers.size());
    for (const Item & caller : returned.callers) {
        push(caller.position, caller.frame);
    }
}

// Stores a frame of this step, after those that it returns to; returns its number.
uint32_t GrammarMachine::settle(uint32_t frame) {
    std::vector<uint32_t> open{frame};
    while (!open.empty()) {
        NewFrame & top = new_frames_[open.back() - kNew];
        if (top.frame != 0) {
            open.pop_back();
            continue;
        }
        const size_t n_open = open.size();
        for (const Item & caller : top.callers) {
            if (caller.frame >= kNew && new_frames_[caller.frame - kNew].frame == 0) {
                open.push_back(caller.frame);
            }
        }
        if (open.size() > n_open) {
            if (top.visiting) { // a rule calls itself before any character: that is left recursion, which is refused
                throw std::logic_error("the grammar is left-recursive");
            }
            top.visiting = true;
            continue;
        }
        spend(top.callers.size());
        for (Item & caller : top.callers) {
            caller.frame = caller.frame >= kNew ? new_frames_[caller.frame - kNew].frame : caller.frame;
        }
        std::sort(top.callers.begin(), top.callers.end());
        top.callers.erase(std::unique(top.callers.begin(), top.callers.end()), top.callers.end());
        top.frame = store(frames_, top.callers);
        open.pop_back();
    }
    return new_frames_[frame - kNew].frame;
}

GrammarMachine::State GrammarMachine::finish_step() {
    while (!todo_.empty()) {
        const Item item = todo_.back();
        todo_.pop_back();
        spend(1);
        if (item.position == kEnd) {
            return_from(item.frame);
        } else if ((*rules_)[item.position].type == LLAMA_GRETYPE_RULE_REF) {
            call((*rules_)[item.position].value, {item.position + 1, item.frame});
        } else {
            result_.push_back(item);
        }
    }
    for (Item & item : result_) {
        item.frame = item.frame >= kNew ? settle(item.frame) : item.frame;
    }
    std::sort(result_.begin(), result_.end());
    result_.erase(std::unique(result_.begin(), result_.end()), result_.end());
    return store(states_, result_);
}

// Whether an element fits a character, as in llama.cpp; `next` is the position after it.
bool GrammarMachine::fits(uint32_t position, uint32_t character, uint32_t & next) const {
    const GrammarRules & rules = *rules_;
    const enum llama_gretype type = rules[position].type;
    bool found = false;
    do {
        if (rules[position + 1].type == LLAMA_GRETYPE_CHAR_RNG_UPPER) {
            found = found || (rules[position].value <= character && character <= rules[position + 1].value);
            position += 2;
        } else {
            found = found || rules[position].type == LLAMA_GRETYPE_CHAR_ANY || rules[position].value == character;
            position += 1;
        }
    } while (rules[position].type == LLAMA_GRETYPE_CHAR_ALT);
    next = position;
    return found != (type == LLAMA_GRETYPE_CHAR_NOT);
}

uint32_t & GrammarMachine::stored_step(State state, uint32_t character) {
    constexpr uint32_t kFewClasses = 256;
    const uint32_t n_classes = rules_->n_classes(), kind = rules_->class_of(character);
    if (n_classes > kFewClasses) {
        const auto [found, is_new] = many_steps_.emplace((uint64_t{state} << 32) | kind, kUnknown);
        n_stored_steps_ += is_new;
        spend(is_new ? 4 : 0); // for the memory
        return found->second;
    }
    if (state >= steps_.size()) {
        steps_.resize(std::max<size_t>(states_.size(), 2 * steps_.size()));
    }
    if (!steps_[state]) {
        steps_[state] = std::make_unique<uint32_t[]>(n_classes);
        std::fill_n(steps_[state].get(), n_classes, kUnknown);
        n_stored_steps_ += n_classes;
        spend(1 + n_classes / 16);
    }
    return steps_[state][kind];
}

GrammarMachine::State GrammarMachine::step(State state, uint32_t character) {
    uint32_t & known = stored_step(state, character);
    if (known != kUnknown) {
        return known;
    }
    begin_step();
    const auto n = static_cast<size_t>(states_.end(state) - states_.begin(state));
    spend(1 + n / 4); // to test an item costs less than to go on from it
    for (size_t i = 0; i < n; ++i) {
        const Item item = states_.begin(state)[i];
        if (item.position == kEnd || is_token((*rules_)[item.position])) {
            continue;
        }
        uint32_t next = 0;
        const bool fitting = fits(item.position, character, next);
        spend((next - item.position) / 8);
        if (fitting) {
            push(next, item.frame);
        }
    }
    return known = finish_step();
}

bool GrammarMachine::names_tokens(State state) const {
    return std::any_of(states_.begin(state), states_.end(state),
                       [&](const Item & item) { return item.position != kEnd && is_token((*rules_)[item.position]); });
}

namespace {

bool names(const llama_grammar_element & element, llama_token token) {
    return (element.type == LLAMA_GRETYPE_TOKEN && element.value == static_cast<uint32_t>(token)) ||
           (element.type == LLAMA_GRETYPE_TOKEN_NOT && element.value != static_cast<uint32_t>(token));
}

} // namespace

bool GrammarMachine::allows_token(State state, llama_token token) const {
    return std::any_of(states_.begin(state), states_.end(state),
                       [&](const Item & item) { return item.position != kEnd && names((*rules_)[item.position], token); });
}

GrammarMachine::State GrammarMachine::step_token(State state, llama_token token) {
    begin_step();
    for (const Item * item = states_.begin(state); item != states_.end(state); ++item) {
        spend(1);
        if (item->position != kEnd && names((*rules_)[item->position], token)) {
            push(item->position + 1, item->frame);
        }
    }
    return finish_step();
}

GrammarMachine::State GrammarMachine::either(State a, State b) {
    if (a == b || b == kNone) {
        return a;
    }
    Items items;
    spend(static_cast<uint64_t>(states_.end(a) - states_.begin(a) + states_.end(b) - states_.begin(b)));
    std::set_union(states_.begin(a), states_.end(a), states_.begin(b), states_.end(b), std::back_inserter(items));
    return store(states_, items);
}

bool GrammarMachine::may_end(State state) const { // items are sorted: the end comes last
    return states_.begin(state) != states_.end(state) && (states_.end(state) - 1)->position == kEnd;
}

bool GrammarMachine::may_begin(State state, llama_partial_utf8 partial) const {
    if (partial.n_remain < 0 || (partial.n_remain == 1 && partial.value < 2)) {
        return false; // not UTF-8, or an overlong encoding
    }
    const auto shift = static_cast<uint32_t>(6 * partial.n_remain);
    uint32_t low = partial.value << shift;
    const uint32_t high = low | ((uint32_t{1} << shift) - 1);
    if (low == 0) {
        low = partial.n_remain == 2 ? 1U << 11 : partial.n_remain == 3 ? 1U << 16 : 0;
    }
    return std::any_of(states_.begin(state), states_.end(state),
                       [&](const Item & item) { return fits_any(item.position, low, high); });
}

// Whether an element fits a character from `low` to `high`.
bool GrammarMachine::fits_any(uint32_t position, uint32_t low, uint32_t high) const {
    const GrammarRules & rules = *rules_;
    if (position == kEnd || is_token(rules[position])) {
        return false;
    }
    uint32_t next = 0;
    if (rules[position].type == LLAMA_GRETYPE_CHAR_NOT) { // one character of each class is enough
        for (uint32_t kind = rules.class_of(low); kind <= rules.class_of(high); ++kind) {
            if (fits(position, std::max(low, rules.first_of(kind)), next)) {
                return true;
            }
        }
        return false;
    }
    do {
        const bool range = rules[position + 1].type == LLAMA_GRETYPE_CHAR_RNG_UPPER;
        const uint32_t upper = range ? rules[position + 1].value : rules[position].value;
        if (rules[position].type == LLAMA_GRETYPE_CHAR_ANY || (rules[position].value <= high && low <= upper)) {
            return true;
        }
        position += range ? 2 : 1;
    } while (rules[position].type == LLAMA_GRETYPE_CHAR_ALT);
    return false;
}

uint32_t GrammarMachine::copy_frame(const GrammarMachine & from, uint32_t frame,
                                    std::unordered_map<uint32_t, uint32_t> & known) {
    bool is_new = false;
    std::vector<uint32_t> open{frame};
    while (!open.empty()) {
        const uint32_t top = open.back();
        const size_t n_open = open.size();
        for (const Item * caller = from.frames_.begin(top); caller != from.frames_.end(top); ++caller) {
            if (!known.count(caller->frame)) {
                open.push_back(caller->frame);
            }
        }
        if (open.size() > n_open) {
            continue;
        }
        Items callers(from.frames_.begin(top), from.frames_.end(top));
        for (Item & caller : callers) {
            caller.frame = known.at(caller.frame);
        }
        std::sort(callers.begin(), callers.end());
        known[top] = frames_.add(callers, is_new);
        open.pop_back();
    }
    return known.at(frame);
}

std::pair<std::unique_ptr<GrammarMachine>, GrammarMachine::State> GrammarMachine::copy(State state) const {
    std::unique_ptr<GrammarMachine> machine(new GrammarMachine(rules_, budget_));
    std::unordered_map<uint32_t, uint32_t> known{{0, 0}};
    bool is_new = false;
    const auto copy_state = [&](State of) {
        Items items(states_.begin(of), states_.end(of));
        for (Item & item : items) {
            item.frame = machine->copy_frame(*this, item.frame, known);
        }
        std::sort(items.begin(), items.end());
        return machine->states_.add(items, is_new);
    };
    machine->start_ = copy_state(start_);
    const State copied = copy_state(state);
    return {std::move(machine), copied};
}

GrammarMachine::State GrammarMachine::next_token(State state, bool & renamed) {
    budget_ = std::min(budget_ + kPerToken, kBurst);
    renamed = states_.n_items() + frames_.n_items() + n_stored_steps_ > kMostMemory;
    if (renamed) {
        auto [machine, copied] = copy(state);
        *this = std::move(*machine);
        return copied;
    }
    return state;
}

std::unique_ptr<GrammarMachine> make_machine(std::shared_ptr<const GrammarRules> rules) {
    try {
        return std::make_unique<GrammarMachine>(std::move(rules));
    } catch (const GrammarLimit & error) {
        throw_value_error(error.what());
    }
}
