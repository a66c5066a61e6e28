#include "token_trie.hpp"

#include <algorithm>
#include <utility>

#include "text.hpp"

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

namespace {

// Appends the code points of a text of kind 0, and a 0. Returns the beginning of a character at the end of the text.
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

// Makes a node of every prefix of a text, in the order of the texts.
void TokenTrie::add_nodes(const std::vector<uint32_t> & code_points, const std::vector<Text> & texts) {
    std::vector<uint32_t> path{0}; // nodes of the text before this one, from the root on
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
    if (!handle.trie.load() && !handle.forked()) { // in a child, a thread that does not exist may hold the lock
        lock.lock();
    }
    const std::shared_ptr<const TokenTrie> * known = handle.trie.load();
    if (!known) {
        auto made = std::make_unique<const std::shared_ptr<const TokenTrie>>(std::make_shared<TokenTrie>(model.vocab()));
        if (handle.trie.compare_exchange_strong(known, made.get())) {
            known = made.release();
        } // else another thread of the child made it meanwhile
    }
    return *known;
}

void TokenTrie::follow(GrammarMachine & machine, GrammarMachine::State state, std::vector<unsigned char> & allowed) const {
    allowed.assign(kinds_.size(), 0);
    std::vector<GrammarMachine::State> states(depth_ + 1); // by number of characters
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
