#include "reasoning_sampler.hpp"

#include <algorithm>
#include <utility>

#include "common.h"
#include "errors.hpp"
#include "grammar_sampler.hpp"
#include "sampler_state.hpp"
#include "unicode.h"

namespace {

enum class State {
    kBefore,  // reasoning may begin
    kInside,  // its tokens are counted
    kEnding,  // the budget is used up: the forced tokens follow
    kOutside, // reasoning is over, or cannot begin any more
};

// The same as common/reasoning-budget.h, but by text: a tag within a text may consist of other tokens than the tag alone,
// and a search for those tokens would miss it.
struct Reasoning {
    const llama_vocab * vocab;
    std::string start;
    std::vector<std::string> ends;
    std::vector<llama_token> forced;
    int32_t budget;
    bool inside;
    bool anywhere;

    State state = State::kBefore;
    int32_t remaining = 0; // tokens of the budget; all parts of reasoning share it
    size_t n_forced = 0;   // forced tokens that were generated
    std::string text;      // the end of the generated text, in which a tag may have begun
};

Reasoning & reasoning_of(const llama_sampler * sampler) { return *static_cast<Reasoning *>(sampler->ctx); }

constexpr const char * kSpace = " \t\r\n";
constexpr size_t kLongestCharacter = 4; // bytes

void begin(Reasoning & reasoning) {
    reasoning.state = reasoning.remaining > 0 ? State::kInside : State::kEnding;
    reasoning.n_forced = 0;
    reasoning.text.clear();
}

void restart(Reasoning & reasoning) {
    reasoning.state = State::kBefore;
    reasoning.remaining = reasoning.budget;
    reasoning.text.clear();
    if (reasoning.inside) {
        begin(reasoning);
    }
}

// Keeps the last `n` bytes of the text: a longer tag may have begun there.
void keep_last(std::string & text, size_t n) {
    if (text.size() > n) {
        text.erase(0, text.size() - n);
    }
}

void look_for_start(Reasoning & reasoning) {
    std::string & text = reasoning.text;
    if (reasoning.anywhere) {
        if (text.find(reasoning.start) != std::string::npos) {
            begin(reasoning);
        } else {
            keep_last(text, reasoning.start.size() - 1);
        }
        return;
    }
    text.erase(0, std::min(text.find_first_not_of(kSpace), text.size()));
    const size_t n = std::min(text.size(), reasoning.start.size());
    if (text.compare(0, n, reasoning.start, 0, n) != 0) {
        reasoning.state = State::kOutside;
        text.clear();
    } else if (n == reasoning.start.size()) {
        begin(reasoning);
    }
}

bool has_ended(const Reasoning & reasoning) {
    return std::any_of(reasoning.ends.begin(), reasoning.ends.end(),
                       [&](const std::string & end) { return reasoning.text.find(end) != std::string::npos; });
}

void end(Reasoning & reasoning) {
    reasoning.state = reasoning.anywhere ? State::kBefore : State::kOutside;
    reasoning.text.clear();
}

void count(Reasoning & reasoning) {
    if (has_ended(reasoning)) {
        end(reasoning);
        return;
    }
    // A character whose bytes are several tokens is completed first, even beyond the budget.
    if ((reasoning.remaining <= 0 || --reasoning.remaining == 0) && common_utf8_is_complete(reasoning.text)) {
        reasoning.state = State::kEnding;
        reasoning.n_forced = 0;
    }
    size_t longest = kLongestCharacter;
    for (const std::string & end : reasoning.ends) {
        longest = std::max(longest, end.size());
    }
    keep_last(reasoning.text, longest - 1);
}

void accept(llama_sampler * sampler, llama_token token) {
    Reasoning & reasoning = reasoning_of(sampler);
    if (reasoning.state == State::kOutside) {
        return;
    }
    reasoning.text += common_token_to_piece(reasoning.vocab, token, true);
    if (reasoning.state == State::kBefore) {
        look_for_start(reasoning);
    } else if (reasoning.state == State::kInside) {
        count(reasoning);
    } else if (token != reasoning.forced[reasoning.n_forced]) {
        reasoning.n_forced = 0; // a grammar did not allow the forced token
        if (has_ended(reasoning)) {
            end(reasoning);
        }
    } else if (++reasoning.n_forced == reasoning.forced.size()) {
        end(reasoning);
    }
}

llama_sampler * wrap(Reasoning && reasoning);

llama_sampler_i make_interface() {
    llama_sampler_i i{};
    i.name = [](const llama_sampler *) { return "reasoning-budget"; };
    i.accept = accept;
    i.apply = [](llama_sampler *, llama_token_data_array *) {}; // sample() asks forced_token()
    i.reset = [](llama_sampler * sampler) { restart(reasoning_of(sampler)); };
    i.clone = [](const llama_sampler * sampler) { return wrap(Reasoning(reasoning_of(sampler))); };
    i.free = [](llama_sampler * sampler) { delete &reasoning_of(sampler); };
    return i;
}

llama_sampler_i & interface() {
    static llama_sampler_i instance = make_interface();
    return instance;
}

llama_sampler * wrap(Reasoning && reasoning) { return make_sampler(interface(), std::move(reasoning)); }

} // namespace

llama_sampler * make_reasoning_sampler(const LlamaVocab & vocab, const std::string & start,
                                       const std::vector<std::string> & ends, const std::vector<llama_token> & forced,
                                       int32_t budget, bool inside, bool anywhere) {
    ModelUse model(vocab.handle);
    model.check_vocab();
    for (llama_token token : forced) {
        model.check_token(token);
    }
    const auto is_empty = [](const std::string & text) { return text.empty(); };
    if (start.empty() || ends.empty() || std::any_of(ends.begin(), ends.end(), is_empty)) {
        throw_value_error("`start`, `ends` and the texts in it must not be empty");
    }
    if (forced.empty()) {
        throw_value_error("`forced` must have at least one token");
    }
    if (budget < 0) {
        throw_value_error("`budget` must be 0 or more tokens, not " + std::to_string(budget));
    }
    Reasoning reasoning{model.vocab(), start, ends, forced, budget, inside, anywhere};
    restart(reasoning);
    return wrap(std::move(reasoning));
}

bool is_reasoning_sampler(const llama_sampler * sampler) { return sampler->iface == &interface(); }

llama_token forced_token(llama_sampler * chain) {
    const int n = llama_sampler_chain_get(chain, -1) ? llama_sampler_chain_n(chain) : 0;
    llama_token forced = LLAMA_TOKEN_NULL;
    for (int i = 0; i < n; ++i) {
        const llama_sampler * sampler = llama_sampler_chain_get(chain, i);
        if (is_reasoning_sampler(sampler) && reasoning_of(sampler).state == State::kEnding) {
            forced = reasoning_of(sampler).forced[reasoning_of(sampler).n_forced];
        }
    }
    for (int i = 0; i < n && forced != LLAMA_TOKEN_NULL; ++i) {
        const llama_sampler * sampler = llama_sampler_chain_get(chain, i);
        if (is_grammar_sampler(sampler) && !grammar_allows(sampler, forced)) {
            return LLAMA_TOKEN_NULL;
        }
    }
    return forced;
}
