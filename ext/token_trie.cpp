#include "token_trie.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <utility>

// ------------------------------------------------------------------------------------------------------------------ UTF-8

// llama.cpp's grammars take overlong encodings for the character that they would stand for, so that a text of byte tokens
// could fit a grammar and be no text.
namespace utf8 {

namespace {

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

} // namespace

bool is_invalid_after(unsigned char lead, unsigned char byte) {
    return (lead == 0xE0 && byte < 0xA0) || (lead == 0xED && byte > 0x9F) || (lead == 0xF0 && byte < 0x90) ||
           (lead == 0xF4 && byte > 0x8F);
}

unsigned char kind(const std::string & piece) {
    size_t missing = 0; // bytes of the character in progress
    for (size_t i = 0; i < piece.size(); ++i) {
        const auto byte = static_cast<unsigned char>(piece[i]);
        const auto before = static_cast<unsigned char>(i ? piece[i - 1] : 0);
        if (byte == 0 || byte == 0xC0 || byte == 0xC1 || byte > 0xF4 ||
            (is_continuation(byte) && is_invalid_after(before, byte)) || (missing && !is_continuation(byte))) {
            return kNever;
        }
        missing = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : byte >= 0xC0 ? 1 : missing ? missing - 1 : 0;
    }
    return !piece.empty() && is_continuation(static_cast<unsigned char>(piece[0])) ? static_cast<unsigned char>(piece[0])
                                                                                   : 0;
}

} // namespace utf8

std::string piece_of(const llama_vocab * vocab, llama_token token) {
    std::string piece(64, '\0');
    int32_t size = llama_token_to_piece(vocab, token, piece.data(), static_cast<int32_t>(piece.size()), 0, true);
    if (size < 0) {
        piece.resize(static_cast<size_t>(-size));
        size = llama_token_to_piece(vocab, token, piece.data(), static_cast<int32_t>(piece.size()), 0, true);
    }
    piece.resize(static_cast<size_t>(std::max(size, 0)));
    return piece;
}

// ------------------------------------------------------------------------------------------------------------------- trie

namespace {

// Appends the code points of a text of harmless kind, and a 0; returns what is left of a character at its end.
llama_partial_utf8 decode(const std::string & piece, std::vector<uint32_t> & code_points) {
    llama_partial_utf8 partial{0, 0};
    for (const char c : piece) {
        const auto byte = static_cast<unsigned char>(c);
        if (partial.n_remain > 0) {
            partial = {(partial.value << 6) | (byte & 0x3FU), partial.n_remain - 1};
        } else if (byte >= 0xF0) {
            partial = {byte & 0x07U, 3};
        } else if (byte >= 0xE0) {
            partial = {byte & 0x0FU, 2};
        } else if (byte >= 0xC0) {
            partial = {byte & 0x1FU, 1};
        } else {
            partial = {byte, 0};
        }
        if (partial.n_remain == 0) {
            code_points.push_back(partial.value);
            partial.value = 0;
        }
    }
    code_points.push_back(0);
    return partial;
}

} // namespace

TokenTrie::TokenTrie(const llama_vocab * vocab) {
    for (llama_token id = 0; id < llama_vocab_n_tokens(vocab); ++id) {
        const std::string piece = piece_of(vocab, id);
        kinds_.push_back(utf8::kind(piece));
        if (llama_vocab_is_eog(vocab, id)) {
            ends_.push_back(id);
        } else if (kinds_.back() == 0 && !piece.empty()) {
            const auto text = static_cast<uint32_t>(code_points_.size());
            const llama_partial_utf8 partial = decode(piece, code_points_);
            tokens_.push_back({id, text, partial});
        } else if (kinds_.back() > utf8::kNever) {
            continuing_.push_back(id);
        }
    }
    std::sort(tokens_.begin(), tokens_.end(), [&](const Token & a, const Token & b) {
        const uint32_t *x = &code_points_[a.text], *y = &code_points_[b.text];
        for (; *x == *y && *x; ++x, ++y) {
        }
        return *x < *y;
    });
}

std::shared_ptr<const TokenTrie> TokenTrie::of(ModelHandle & handle, const ModelUse & model) {
    std::unique_lock<std::mutex> lock(handle.trie_mutex, std::defer_lock);
    if (!handle.trie.load() && !handle.forked()) { // a child may find it locked by a thread that does not exist there
        lock.lock();
    }
    const std::shared_ptr<const TokenTrie> * known = handle.trie.load();
    if (!known) {
        auto made = std::make_unique<const std::shared_ptr<const TokenTrie>>(std::make_shared<TokenTrie>(model.vocab()));
        if (handle.trie.compare_exchange_strong(known, made.get())) {
            known = made.release();
        } // else another thread of the child was first
    }
    return *known;
}

// Follows a grammar through the tokens, character by character: what cannot begin so is passed over as a whole.
class TokenTrie::Walk {
  public:
    Walk(const TokenTrie & trie, llama_grammar & grammar, std::vector<unsigned char> & allowed)
        : trie_(trie), grammar_(grammar), allowed_(allowed) {}

    // Looks at the tokens from `begin` to `end`, whose first `depth` characters led to `stacks`. Returns false if it gave up.
    bool visit(size_t begin, size_t end, size_t depth, const llama_grammar_stacks & stacks) {
        llama_grammar_candidates candidates; // tokens, and single characters in place of many tokens that go on with them
        std::vector<std::pair<size_t, size_t>> ranges; // of each candidate
        std::deque<std::array<uint32_t, 2>> characters;
        const auto add = [&](size_t from, size_t to, const uint32_t * text, llama_partial_utf8 partial, llama_token id) {
            candidates.push_back({candidates.size(), text, partial, id});
            ranges.emplace_back(from, to);
        };
        for (size_t i = begin; i < end;) {
            const uint32_t character = *text(i, depth);
            const size_t next = character ? end_of(i, end, depth) : i + 1;
            if (next - i <= kFew) {
                for (; i < next; ++i) {
                    add(i, i + 1, text(i, depth), trie_.tokens_[i].partial, trie_.tokens_[i].id);
                }
            } else {
                characters.push_back({character, 0});
                add(i, next, characters.back().data(), {0, 0}, trie_.tokens_[i].id);
                i = next;
            }
        }
        n_tested_ += candidates.size();
        if (n_tested_ > kMost) {
            return false;
        }
        const std::vector<bool> rejected = reject(candidates, stacks);
        for (size_t i = 0; i < candidates.size(); ++i) {
            if (rejected[i]) {
                continue;
            }
            const auto [from, to] = ranges[i];
            if (to - from == 1) {
                allowed_[static_cast<size_t>(trie_.tokens_[from].id)] = 1;
            } else {
                grammar_.stacks = stacks;
                llama_grammar_accept(&grammar_, *candidates[i].code_points);
                const llama_grammar_stacks after = std::move(grammar_.stacks);
                if (!visit(from, to, depth + 1, after)) {
                    return false;
                }
            }
        }
        return true;
    }

  private:
    static constexpr size_t kFew = 4;        // tokens that are tested one by one
    static constexpr size_t kMost = 1 << 15; // candidates, after which testing all tokens at once is as fast

    const uint32_t * text(size_t i, size_t depth) const { return &trie_.code_points_[trie_.tokens_[i].text + depth]; }

    // The end of the tokens that go on with the same character as token `i`.
    size_t end_of(size_t i, size_t end, size_t depth) const {
        const uint32_t character = *text(i, depth);
        const auto first = trie_.tokens_.begin();
        const auto found =
            std::partition_point(first + static_cast<ptrdiff_t>(i), first + static_cast<ptrdiff_t>(end),
                                 [&](const Token & token) { return trie_.code_points_[token.text + depth] <= character; });
        return static_cast<size_t>(found - first);
    }

    std::vector<bool> reject(const llama_grammar_candidates & candidates, const llama_grammar_stacks & stacks) const {
        llama_grammar_candidates left = candidates;
        for (const auto & stack : stacks) {
            if (left.empty()) {
                break;
            }
            left = llama_grammar_reject_candidates_for_stack(grammar_.rules, stack, left);
        }
        std::vector<bool> rejected(candidates.size());
        for (const auto & candidate : left) {
            rejected[candidate.index] = true;
        }
        return rejected;
    }

    const TokenTrie & trie_;
    llama_grammar & grammar_;
    std::vector<unsigned char> & allowed_;
    size_t n_tested_ = 0;
};

namespace {

bool has_token_rules(const llama_grammar & grammar) {
    for (const auto & rule : grammar.rules) {
        for (const auto & element : rule) {
            if (element.type == LLAMA_GRETYPE_TOKEN || element.type == LLAMA_GRETYPE_TOKEN_NOT) {
                return true;
            }
        }
    }
    return false;
}

} // namespace

bool TokenTrie::follow(llama_grammar & grammar, std::vector<unsigned char> & allowed) const {
    allowed.assign(kinds_.size(), 0);
    if (grammar.partial_utf8.n_remain != 0) {
        std::vector<llama_token_data> candidates;
        for (const llama_token id : continuing_) {
            candidates.push_back({id, 0.0f, 0.0f});
        }
        llama_token_data_array array{candidates.data(), candidates.size(), -1, false};
        llama_grammar_apply_impl(grammar, &array);
        for (const auto & candidate : candidates) {
            allowed[static_cast<size_t>(candidate.id)] = candidate.logit != -INFINITY;
        }
        return true;
    }
    if (has_token_rules(grammar)) {
        return false;
    }
    const llama_grammar_stacks stacks = std::move(grammar.stacks);
    const bool done = Walk(*this, grammar, allowed).visit(0, tokens_.size(), 0, stacks);
    grammar.stacks = stacks;
    if (std::any_of(stacks.begin(), stacks.end(), [](const auto & stack) { return stack.empty(); })) {
        for (const llama_token id : ends_) {
            allowed[static_cast<size_t>(id)] = 1;
        }
    }
    return done;
}
