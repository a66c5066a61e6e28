#include "grammar_sampler.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <regex>

#include "big_stack.hpp"
#include "grammar.hpp"
#include "token_trie.hpp"

namespace {

// How a grammar was made, and is made again by a reset.
struct Source {
    std::string text;
    std::string root;
    bool lazy;
    std::vector<std::string> patterns;
    std::vector<llama_token> tokens;
};

struct FreeGrammar {
    void operator()(llama_grammar * grammar) const { llama_grammar_free_impl(grammar); }
};
using GrammarPtr = std::unique_ptr<llama_grammar, FreeGrammar>;

// llama.cpp's grammar aborts the process after a token that does not fit. This refuses such a token instead, and gives the
// grammar's recursions the stack they need.
struct Grammar {
    GrammarPtr state; // null allows everything
    const llama_vocab * vocab;
    std::shared_ptr<const Source> source;
    std::shared_ptr<const TokenTrie> trie;
    size_t parse_stack;                 // bytes to parse it: the parser recurses into brackets and rules
    size_t trigger_stack;               // bytes per byte of text, for std::regex; 0 without a pattern to search for
    size_t text_size = 0;               // of what was accepted since the start
    bool broken = false;                // what triggered it did not fit: its state is undefined until reset()
    unsigned char lead = 0;             // the last byte accepted, if it begins a character that not every byte may continue
    std::vector<unsigned char> allowed; // by token
};

Grammar & grammar_of(const llama_sampler * sampler) { return *static_cast<Grammar *>(sampler->ctx); }

GrammarPtr parse(const llama_vocab * vocab, const Source & source) {
    std::vector<const char *> patterns;
    for (const auto & pattern : source.patterns) {
        patterns.push_back(pattern.c_str());
    }
    return GrammarPtr(llama_grammar_init_impl(vocab, source.text.c_str(), source.root.c_str(), source.lazy, patterns.data(),
                                              patterns.size(), source.tokens.data(), source.tokens.size()));
}

void check_working(const Grammar & grammar) {
    if (grammar.broken) {
        throw std::runtime_error("the grammar was left with a text that does not fit it: reset() the sampler");
    }
}

// Applies the grammar to all tokens by following it through their texts. Returns false if that is not the way.
bool follow(Grammar & grammar, llama_token_data_array * candidates) {
    constexpr size_t kFew = 256;
    if (candidates->size < kFew || !grammar.trie->follow(*grammar.state, grammar.allowed)) {
        return false;
    }
    for (size_t i = 0; i < candidates->size; ++i) {
        llama_token_data & candidate = candidates->data[i];
        if (!grammar.allowed[static_cast<size_t>(candidate.id)]) {
            candidate.logit = -INFINITY;
        }
    }
    return true;
}

void apply(llama_sampler * sampler, llama_token_data_array * candidates) {
    Grammar & grammar = grammar_of(sampler);
    check_working(grammar);
    if (grammar.state && !grammar.state->awaiting_trigger && !follow(grammar, candidates)) {
        llama_grammar_apply_impl(*grammar.state, candidates);
    }
    for (size_t i = 0; i < candidates->size; ++i) {
        llama_token_data & candidate = candidates->data[i];
        const unsigned char kind = grammar.trie->utf8_kind(candidate.id);
        if (kind && (kind == utf8::kNever || utf8::is_invalid_after(grammar.lead, kind))) {
            candidate.logit = -INFINITY;
        }
    }
}

void accept(llama_sampler * sampler, llama_token token) {
    constexpr size_t kSmallText = 1024;
    Grammar & grammar = grammar_of(sampler);
    if (!grammar_allows(sampler, token)) {
        throw std::runtime_error("token " + std::to_string(token) + " does not fit the grammar");
    }
    const std::string piece = piece_of(grammar.vocab, token);
    grammar.text_size += piece.size();
    grammar.lead = piece.empty() ? grammar.lead : static_cast<unsigned char>(piece.back());
    if (!grammar.state) {
        return;
    }
    grammar.broken = true;
    const auto advance = [&] { llama_grammar_accept_impl(*grammar.state, token); };
    if (grammar.trigger_stack && grammar.text_size > kSmallText) {
        run_on_big_stack(grammar.text_size * grammar.trigger_stack, advance);
    } else {
        advance();
    }
    grammar.broken = false;
}

void reset(llama_sampler * sampler) {
    Grammar & grammar = grammar_of(sampler);
    if (grammar.state) {
        run_on_big_stack(grammar.parse_stack, [&] { grammar.state = parse(grammar.vocab, *grammar.source); });
    }
    grammar.broken = false;
    grammar.text_size = 0;
    grammar.lead = 0;
}

llama_sampler * wrap(Grammar && grammar);

llama_sampler * clone(const llama_sampler * sampler) {
    const Grammar & original = grammar_of(sampler);
    GrammarPtr state(original.state ? llama_grammar_clone_impl(*original.state) : nullptr);
    return wrap({std::move(state),
                 original.vocab,
                 original.source,
                 original.trie,
                 original.parse_stack,
                 original.trigger_stack,
                 original.text_size,
                 original.broken,
                 original.lead,
                 {}});
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

llama_sampler * wrap(Grammar && grammar) {
    auto owned = std::make_unique<Grammar>(std::move(grammar));
    llama_sampler * sampler = llama_sampler_init(&interface(), owned.get());
    owned.release();
    return sampler;
}

} // namespace

llama_sampler * make_grammar_sampler(const LlamaVocab & vocab, const std::string & text, const std::string & root,
                                     bool lazy, const std::vector<std::string> & patterns,
                                     const std::vector<llama_token> & tokens) {
    constexpr size_t kRegexStackPerByte = 512, kPatternStackPerByte = 4096, kLongestPattern = 64;
    LogDelivery delivery;
    ModelUse model(vocab.handle);
    model.check_vocab();
    for (llama_token token : tokens) {
        model.check_token(token);
    }
    size_t pattern_size = 0;
    for (const std::string & pattern : patterns) {
        pattern_size += pattern.size() + 1;
    }
    Grammar grammar{};
    grammar.vocab = model.vocab();
    grammar.source = std::make_shared<const Source>(Source{text, root, lazy, patterns, tokens});
    grammar.trigger_stack = std::min(pattern_size, kLongestPattern) * kRegexStackPerByte;
    {
        WithoutGil release;
        grammar.trie = TokenTrie::of(*vocab.handle, model);
    }
    try {
        grammar.parse_stack = with_grammar(model.vocab(), text, root, pattern_size * kPatternStackPerByte, [&] {
            grammar.state = text.empty() ? nullptr : parse(model.vocab(), *grammar.source);
        });
    } catch (const std::regex_error & error) {
        throw nb::value_error((std::string("a trigger pattern cannot be parsed: ") + error.what()).c_str());
    }
    if (!grammar.state && !text.empty()) {
        throw nb::value_error(("llama.cpp refuses the grammar: " + logged_errors("no reason given")).c_str());
    }
    return wrap(std::move(grammar));
}

bool is_grammar_sampler(const llama_sampler * sampler) { return sampler->iface == &interface(); }

bool grammar_allows(const llama_sampler * sampler, llama_token token) {
    llama_token_data candidate{token, 0.0f, 0.0f};
    llama_token_data_array array{&candidate, 1, -1, false};
    apply(const_cast<llama_sampler *>(sampler), &array);
    return candidate.logit != -INFINITY;
}
