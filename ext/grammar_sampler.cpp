#include "grammar_sampler.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <regex>
#include <tuple>
#include <utility>

#include "big_stack.hpp"
#include "errors.hpp"
#include "grammar_machine.hpp"
#include "guard.hpp"
#include "sampler_state.hpp"
#include "text.hpp"
#include "token_trie.hpp"

namespace {

using State = GrammarMachine::State;

constexpr llama_partial_utf8 kWhole{0, 0}; // no character is in progress

// The patterns and tokens at which a lazy grammar begins.
struct Triggers {
    std::vector<llama_grammar_trigger_pattern> patterns;
    std::vector<llama_token> tokens;
    size_t stack_per_byte; // stack that std::regex needs for each byte of text; 0 without a pattern
};

// The text that a lazy grammar has read before its trigger.
struct Waiting {
    struct Piece {
        llama_token token;
        size_t begin, end;
    };
    std::string text;
    std::vector<Piece> pieces;
};

struct Mask {
    State state = GrammarMachine::kNone; // the state that the mask is for; kNone: there is no mask
    std::vector<unsigned char> allowed;  // by token: 1 if it may come next
};

// A grammar at a place of a text. A token that does not fit is refused, and changes nothing.
struct Grammar {
    std::unique_ptr<GrammarMachine> machine; // null: every token is allowed
    State state = GrammarMachine::kNone;
    llama_partial_utf8 partial = kWhole;
    const llama_vocab * vocab = nullptr;
    std::shared_ptr<const TokenTrie> trie;
    std::shared_ptr<const Triggers> triggers; // null if it is not lazy
    std::unique_ptr<Waiting> waiting;         // null after the trigger
    bool broken = false;                      // the text at its trigger did not fit: refuse every token until reset()
    unsigned char lead = 0;                   // the last byte accepted, which the next byte may have to fit
    std::array<Mask, 8> masks;                // a text often returns to a recent state
};

Grammar & grammar_of(const llama_sampler * sampler) { return *static_cast<Grammar *>(sampler->ctx); }

void check_working(const Grammar & grammar) {
    if (grammar.broken) {
        throw std::runtime_error("the grammar was left with a text that does not fit it: reset() the sampler");
    }
}

// A place in a text: a state, and the beginning of a character.
struct Place {
    State state;
    llama_partial_utf8 partial;
};

// The place after the bytes of a text; kNone if they do not fit.
Place read(GrammarMachine & machine, Place place, const std::string & bytes) {
    llama_partial_utf8 & partial = place.partial;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        if (partial.n_remain > 0 ? (byte & 0xC0) != 0x80 : (byte & 0xC0) == 0x80 || byte == 0 || byte >= 0xF8) {
            return {GrammarMachine::kNone, kWhole};
        }
        if (partial.n_remain > 0) {
            partial = {(partial.value << 6) | (byte & 0x3FU), partial.n_remain - 1};
        } else {
            const int n = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : byte >= 0xC0 ? 1 : 0;
            partial = {byte & (n ? (0x3FU >> n) : 0x7FU), n};
        }
        if (partial.n_remain == 0) {
            place.state = machine.step(place.state, partial.value);
            partial = kWhole;
        }
        if (place.state == GrammarMachine::kNone) {
            return {GrammarMachine::kNone, kWhole};
        }
    }
    if (partial.n_remain > 0 && !machine.may_begin(place.state, partial)) {
        return {GrammarMachine::kNone, kWhole};
    }
    return place;
}

// The place after a token, of whose text only `bytes` counts; kNone if it does not fit.
Place read_token(Grammar & grammar, llama_token token, const std::string & bytes) {
    GrammarMachine & machine = *grammar.machine;
    if (llama_vocab_is_eog(grammar.vocab, token)) {
        const bool may_end = grammar.partial.n_remain == 0 && machine.may_end(grammar.state);
        return {may_end ? grammar.state : GrammarMachine::kNone, kWhole};
    }
    if (bytes.empty()) {
        return {GrammarMachine::kNone, kWhole};
    }
    Place place = read(machine, {grammar.state, grammar.partial}, bytes);
    const bool is_text = grammar.partial.n_remain == 0 && grammar.trie->utf8_kind(token) == 0;
    if (is_text && machine.names_tokens(grammar.state)) {
        const State named = machine.step_token(grammar.state, token);
        place = {machine.either(place.state, named), place.state == GrammarMachine::kNone ? kWhole : place.partial};
    }
    return place;
}

bool allows(Grammar & grammar, llama_token token) {
    return read_token(grammar, token, piece_of(grammar.vocab, token)).state != GrammarMachine::kNone;
}

const std::vector<unsigned char> & mask_of(Grammar & grammar) {
    Mask & mask = grammar.masks[grammar.state % grammar.masks.size()];
    if (mask.state != grammar.state || mask.state == GrammarMachine::kNone) {
        mask.state = GrammarMachine::kNone; // until it is complete
        grammar.trie->follow(*grammar.machine, grammar.state, mask.allowed);
        mask.state = grammar.state;
    }
    return mask.allowed;
}

void apply(llama_sampler * sampler, llama_token_data_array * candidates) {
    constexpr size_t kFew = 256;
    Grammar & grammar = grammar_of(sampler);
    check_working(grammar);
    const bool follows = grammar.machine && !grammar.waiting;
    const bool by_mask = follows && candidates->size >= kFew && grammar.partial.n_remain == 0;
    const std::vector<unsigned char> * mask = by_mask ? &mask_of(grammar) : nullptr;
    for (size_t i = 0; i < candidates->size; ++i) {
        llama_token_data & candidate = candidates->data[i];
        const unsigned char kind = grammar.trie->utf8_kind(candidate.id);
        const bool never = kind && (kind == utf8::kNever || utf8::is_invalid_after(grammar.lead, kind));
        const bool fits =
            !follows || (mask ? (*mask)[static_cast<size_t>(candidate.id)] != 0 : !never && allows(grammar, candidate.id));
        if (never || !fits) {
            candidate.logit = -INFINITY;
        }
    }
}

// Moves to the place after a token, of whose text only `bytes` counts.
void advance(Grammar & grammar, llama_token token, const std::string & bytes) {
    const Place place = read_token(grammar, token, bytes);
    if (place.state == GrammarMachine::kNone) {
        throw std::runtime_error("token " + std::to_string(token) + " does not fit the grammar");
    }
    grammar.partial = place.partial;
    bool renamed = false;
    grammar.state = grammar.machine->next_token(place.state, renamed);
    if (renamed) {
        grammar.masks = {};
    }
}

// Looks for the trigger of a lazy grammar in the text so far. The grammar's text begins at the trigger.
void look_for_trigger(Grammar & grammar, llama_token token, const std::string & bytes) {
    const Triggers & triggers = *grammar.triggers;
    Waiting & waiting = *grammar.waiting;
    if (std::find(triggers.tokens.begin(), triggers.tokens.end(), token) != triggers.tokens.end()) {
        grammar.waiting.reset();
        advance(grammar, token, bytes);
        return;
    }
    waiting.pieces.push_back({token, waiting.text.size(), waiting.text.size() + bytes.size()});
    waiting.text += bytes;
    for (const llama_grammar_trigger_pattern & pattern : triggers.patterns) {
        const size_t begin = pattern.find(waiting.text);
        if (begin == std::string::npos) {
            continue;
        }
        const std::unique_ptr<Waiting> seen = std::move(grammar.waiting);
        for (const Waiting::Piece & piece : seen->pieces) {
            if (piece.end > begin) {
                const size_t from = std::max(piece.begin, begin);
                advance(grammar, piece.token, seen->text.substr(from, piece.end - from));
            }
        }
        return;
    }
}

void accept(llama_sampler * sampler, llama_token token) {
    constexpr size_t kSmallText = 1024;
    Grammar & grammar = grammar_of(sampler);
    if (!grammar_allows(sampler, token)) {
        throw std::runtime_error("token " + std::to_string(token) + " does not fit the grammar");
    }
    const std::string bytes = piece_of(grammar.vocab, token);
    if (!grammar.machine) {
        // every token is allowed
    } else if (!grammar.waiting) {
        advance(grammar, token, bytes);
    } else {
        grammar.broken = true;
        const size_t size = grammar.waiting->text.size() + bytes.size();
        const auto work = [&] { look_for_trigger(grammar, token, bytes); };
        if (grammar.triggers->stack_per_byte && size > kSmallText) {
            run_on_big_stack(size * grammar.triggers->stack_per_byte, work);
        } else {
            work();
        }
        grammar.broken = false;
    }
    grammar.lead = bytes.empty() ? grammar.lead : static_cast<unsigned char>(bytes.back());
}

void reset(llama_sampler * sampler) {
    Grammar & grammar = grammar_of(sampler);
    grammar.state = grammar.machine ? grammar.machine->start() : GrammarMachine::kNone;
    grammar.partial = kWhole;
    grammar.waiting = grammar.triggers ? std::make_unique<Waiting>() : nullptr;
    grammar.broken = false;
    grammar.lead = 0;
}

llama_sampler * wrap(Grammar && grammar);

llama_sampler * clone(const llama_sampler * sampler) {
    const Grammar & original = grammar_of(sampler);
    Grammar copy;
    if (original.machine) {
        std::tie(copy.machine, copy.state) = original.machine->copy(original.state);
    }
    copy.partial = original.partial;
    copy.vocab = original.vocab;
    copy.trie = original.trie;
    copy.triggers = original.triggers;
    copy.waiting = original.waiting ? std::make_unique<Waiting>(*original.waiting) : nullptr;
    copy.broken = original.broken;
    copy.lead = original.lead;
    return wrap(std::move(copy));
}

llama_sampler_i make_interface() {
    llama_sampler_i i{};
    i.name = [](const llama_sampler *) { return "grammar"; };
    i.accept = accept;
    i.apply = apply;
    i.reset = reset;
    i.clone = clone;
    i.free = [](llama_sampler * sampler) { delete &grammar_of(sampler); };
    return i;
}

llama_sampler_i & interface() {
    static llama_sampler_i instance = make_interface();
    return instance;
}

llama_sampler * wrap(Grammar && grammar) { return make_sampler(interface(), std::move(grammar)); }

// Compiles patterns on a stack that the compiler's recursion does not overflow.
std::shared_ptr<const Triggers> make_triggers(const std::vector<std::string> & patterns,
                                              const std::vector<llama_token> & tokens) {
    constexpr size_t kRegexStackPerByte = 512, kPatternStackPerByte = 4096, kLongestPattern = 64;
    size_t size = 0;
    for (const std::string & pattern : patterns) {
        size += pattern.size() + 1;
    }
    auto triggers = std::make_shared<Triggers>();
    triggers->tokens = tokens;
    triggers->stack_per_byte = std::min(size, kLongestPattern) * kRegexStackPerByte;
    WithoutGil release;
    run_on_big_stack(size * kPatternStackPerByte, [&] {
        for (const std::string & pattern : patterns) {
            triggers->patterns.push_back({pattern, std::regex(pattern)});
        }
    });
    return triggers;
}

} // namespace

llama_sampler * make_grammar_sampler(const LlamaVocab & vocab, const std::string & text, const std::string & root,
                                     bool lazy, const std::vector<std::string> & patterns,
                                     const std::vector<llama_token> & tokens) {
    LogDelivery delivery;
    ModelUse model(vocab.handle);
    model.check_vocab();
    for (llama_token token : tokens) {
        model.check_token(token);
    }
    Grammar grammar;
    grammar.vocab = model.vocab();
    try {
        grammar.triggers = lazy ? make_triggers(patterns, tokens) : nullptr;
    } catch (const std::regex_error & error) {
        throw_value_error(std::string("a trigger pattern cannot be parsed: ") + error.what());
    }
    auto rules = text.empty() ? nullptr : parse_grammar(model.vocab(), text, root);
    {
        WithoutGil release;
        grammar.trie = TokenTrie::of(*vocab.handle, model);
        grammar.machine = rules ? make_machine(std::move(rules)) : nullptr;
    }
    llama_sampler * sampler = wrap(std::move(grammar));
    reset(sampler);
    return sampler;
}

bool is_grammar_sampler(const llama_sampler * sampler) { return sampler->iface == &interface(); }

bool grammar_allows(const llama_sampler * sampler, llama_token token) {
    llama_token_data candidate{token, 0.0f, 0.0f};
    llama_token_data_array array{&candidate, 1, -1, false};
    apply(const_cast<llama_sampler *>(sampler), &array);
    return candidate.logit != -INFINITY;
}

llama_token only_end(const llama_sampler * sampler, const float * logits) {
    Grammar & grammar = grammar_of(sampler);
    check_working(grammar);
    if (!grammar.machine || grammar.waiting || grammar.partial.n_remain > 0 || !grammar.machine->may_end(grammar.state)) {
        return LLAMA_TOKEN_NULL;
    }
    const std::vector<unsigned char> & allowed = mask_of(grammar);
    llama_token end = LLAMA_TOKEN_NULL;
    for (size_t i = 0; i < allowed.size(); ++i) {
        const auto token = static_cast<llama_token>(i);
        if (allowed[i] && !llama_vocab_is_eog(grammar.vocab, token)) {
            return LLAMA_TOKEN_NULL;
        }
        if (allowed[i] && (end == LLAMA_TOKEN_NULL || logits[i] > logits[end])) {
            end = token;
        }
    }
    return end;
}
