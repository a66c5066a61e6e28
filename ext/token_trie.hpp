// The texts of a vocabulary, in an order in which those with the same beginning are neighbours.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "llama-grammar.h" // not of llama.cpp's public API
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

/// The tokens of a vocabulary sorted by their texts. Immutable.
class TokenTrie {
  public:
    explicit TokenTrie(const llama_vocab * vocab);

    /// That of a model, made once.
    static std::shared_ptr<const TokenTrie> of(ModelHandle & handle, const ModelUse & model);

    unsigned char utf8_kind(llama_token token) const { return kinds_[static_cast<size_t>(token)]; }

    /// Sets `allowed` to 1 for the tokens that a grammar allows next. Returns false, with `allowed` undefined, if they are too
    /// many to be found by following the grammar, or if it has rules about tokens instead of texts. The grammar's state is
    /// changed meanwhile, and as it was afterwards.
    bool follow(llama_grammar & grammar, std::vector<unsigned char> & allowed) const;

  private:
    struct Token {
        llama_token id;
        uint32_t text;              // index of the first code point; a 0 ends it
        llama_partial_utf8 partial; // the beginning of a character at its end
    };
    class Walk;

    std::vector<unsigned char> kinds_; // of all tokens
    std::vector<uint32_t> code_points_;
    std::vector<Token> tokens_;           // those that may follow a whole character
    std::vector<llama_token> continuing_; // those that begin within one
    std::vector<llama_token> ends_;       // end-of-generation tokens
};
