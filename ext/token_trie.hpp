// The texts of a vocabulary, in an order in which those with the same beginning are neighbours.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grammar_machine.hpp"
#include "model.hpp"

/// What keeps a text of tokens from becoming invalid UTF-8.
namespace utf8 {

constexpr unsigned char kNever = 1; // the kind of a token with bytes that cannot be in UTF-8

/// The kind of a token: 0 if it may follow any whole character, kNever, or its first byte if that continues a character.
unsigned char kind(const std::string & piece);

/// Whether `byte`, which continues a character, must not follow that character's first byte.
bool is_invalid_after(unsigned char lead, unsigned char byte);

} // namespace utf8

/// Text of a token, control tokens included.
std::string piece_of(const llama_vocab * vocab, llama_token token);

/// The tokens of a vocabulary as a tree of their texts. Immutable.
class TokenTrie {
  public:
    explicit TokenTrie(const llama_vocab * vocab);

    /// That of a model, made once.
    static std::shared_ptr<const TokenTrie> of(ModelHandle & handle, const ModelUse & model);

    unsigned char utf8_kind(llama_token token) const { return kinds_[static_cast<size_t>(token)]; }

    /// Tokens that begin within a character.
    const std::vector<llama_token> & continuing() const { return continuing_; }

    /// Sets `allowed` to 1 for the tokens that may come next, where no character is in progress. Throws GrammarLimit.
    void follow(GrammarMachine & machine, GrammarMachine::State state, std::vector<unsigned char> & allowed) const;

  private:
    struct Token {
        llama_token id;
        llama_partial_utf8 partial; // the beginning of a character at its end
    };
    struct Text {
        size_t begin; // of its code points, which a 0 ends
        Token token;
    };
    // Nodes are in the order of their texts. What follows a node directly, goes on with its text if it is deeper.
    struct Node {
        uint32_t character;
        uint32_t next;        // the first node that does not begin with this one's text
        uint32_t first_token; // those with exactly this text end where the next node's begin
        uint32_t depth;       // characters
    };

    void add_nodes(const std::vector<uint32_t> & code_points, const std::vector<Text> & texts);

    std::vector<unsigned char> kinds_; // of all tokens
    std::vector<Node> nodes_;          // the first one stands for the empty text
    std::vector<Token> tokens_;        // those that may follow a whole character, by their texts
    std::vector<llama_token> continuing_;
    std::vector<llama_token> ends_; // end-of-generation tokens
    uint32_t depth_ = 0;            // of the longest text
};
