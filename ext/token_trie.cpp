#include "token_trie.hpp"

#include <algorithm>
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

// Appends the code points of a text of kind 0, and a 0; returns what is left of a character at its end.
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
    std::vector<uint32_t> code_points;
    std::vector<Text> texts;
    for (llama_token id = 0; id < llama_vocab_n_tokens(vocab); ++id) {
        const std::string piece = piece_of(vocab, id);
        kinds_.push_back(utf8::kind(piece));
        if (llama_vocab_is_eog(vocab, id)) {
            ends_.push_back(id);
        } else if (kinds_.back() == 0 && !piece.empty()) {
            const size_t begin = code_points.size();
            const llama_partial_utf8 partial = decode(piece, code_points);
            texts.push_back({begin, {id, partial}});
        } else if (kinds_.back() > utf8::kNever) {
            continuing_.push_back(id);
        }
    }
    std::sort(texts.begin(), texts.end(), [&](const Text & a, const Text & b) {
        const uint32_t *x = &code_points[a.begin], *y = &code_points[b.begin];
        for (; *x == *y && *x; ++x, ++y) {
        }
        return *x < *y;
    });
    add_nodes(code_points, texts);
}

// Makes a node of every beginning of a text, in the order of the texts.
void TokenTrie::add_nodes(const std::vector<uint32_t> & code_points, const std::vector<Text> & texts) {
    std::vector<uint32_t> path{0}; // nodes of the text before, the root first
    nodes_.push_back({0, 0, 0, 0});
    for (const Text & text : texts) {
        const uint32_t * characters = &code_points[text.begin];
        uint32_t depth = 0;
        while (depth + 1 < path.size() && characters[depth] == nodes_[path[depth + 1]].character) {
            ++depth;
        }
        for (; path.size() > depth + 1; path.pop_back()) {
            nodes_[path.back()].next = static_cast<uint32_t>(nodes_.size());
        }
        for (; characters[depth]; ++depth) {
            path.push_back(static_cast<uint32_t>(nodes_.size()));
            nodes_.push_back({characters[depth], 0, static_cast<uint32_t>(tokens_.size()), depth + 1});
        }
        tokens_.push_back(text.token);
    }
    for (const uint32_t node : path) {
        nodes_[node].next = static_cast<uint32_t>(nodes_.size());
    }
    nodes_.push_back({0, 0, static_cast<uint32_t>(tokens_.size()), 0}); // where the tokens of the last node end
    for (const Node & node : nodes_) {
        depth_ = std::max(depth_, node.depth);
    }
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

void TokenTrie::follow(GrammarMachine & machine, GrammarMachine::State state, std::vector<unsigned char> & allowed) const {
    allowed.assign(kinds_.size(), 0);
    std::vector<GrammarMachine::State> states(depth_ + 1); // by how many characters led there
    for (uint32_t i = 0; i + 1 < nodes_.size();) {
        const Node & node = nodes_[i];
        states[node.depth] = i == 0 ? state : machine.step(states[node.depth - 1], node.character);
        if (states[node.depth] == GrammarMachine::kNone) {
            i = node.next;
            continue;
        }
        for (uint32_t k = node.first_token; k < nodes_[i + 1].first_token; ++k) {
            const Token & token = tokens_[k];
            allowed[static_cast<size_t>(token.id)] =
                token.partial.n_remain == 0 || machine.may_begin(states[node.depth], token.partial);
        }
        ++i;
    }
    if (machine.may_end(state)) {
        for (const llama_token id : ends_) {
            allowed[static_cast<size_t>(id)] = 1;
        }
    }
    if (machine.names_tokens(state)) {
        for (const Token & token : tokens_) {
            allowed[static_cast<size_t>(token.id)] |= machine.allows_token(state, token.id);
        }
    }
}
