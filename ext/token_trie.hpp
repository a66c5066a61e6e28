// The texts of a vocabulary as a tree, which a grammar walks to find the tokens that fit.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grammar_machine.hpp"
#include "model.hpp"

/// Text of a token; control tokens have theirs, too.
std::string piece_of(const llama_vocab * vocab, llama_token token);

/// The tokens of a vocabulary as a tree of their texts. Immutable.
class TokenTrie {
  public:
    explicit TokenTrie(const llama_vocab * vocab);

    /// The tree of a model, made by the first call.
    static std::shared_ptr<const TokenTrie> of(ModelHandle & handle, const ModelUse & model);

    unsigned char utf8_kind(llama_token token) const { return kinds_[static_cast<size_t>(token)]; }

    /// Tokens whose first byte continues a character.
    const std::vector<llama_token> & continuing() const { return continuing_; }

    /// Sets `allowed` (shape: n_vocab) to 1 for the tokens that may come next, else to 0. No character may be in progress.
    /// Throws GrammarLimit.
    void follow(GrammarMachine & machine, GrammarMachine::State state, std::vector<unsigned char> & allowed) const;

  private:
    struct Token {
        llama_token id;
        llama_partial_utf8 partial; // the beginning of a character at its end
    };
    struct Text {
        size_t begin; // index of its first code point; a 0 follows the last one
        Token token;
    };
    // Nodes are in the order of their texts: the node behind another one continues its text if it is deeper.
    struct Node {
        uint32_t character;
        uint32_t next;        // the first node behind it whose text does not begin with this one's
        uint32_t first_token; // the tokens with exactly this text end where those of the next node begin
        uint32_t depth;       // characters of its text
    };

    void add_nodes(const std::vector<uint32_t> & code_points, const std::vector<Text> & texts);

    std::vector<unsigned char> kinds_; // of all tokens
    std::vector<Node> nodes_;          // the first one stands for the empty text
    std::vector<Token> tokens_;        // those that may follow a whole character, by their texts
    std::vector<llama_token> continuing_;
    std::vector<llama_token> ends_; // end-of-generation tokens
    uint32_t depth_ = 0;            // of the longest text
};
