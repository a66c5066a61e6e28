// A sampler that keeps the tokens which a grammar allows.
#pragma once

#include <string>
#include <vector>

#include "model.hpp"

/// Makes a sampler that keeps the tokens which continue a text of a GBNF grammar, so that the text stays valid UTF-8; all
/// tokens if the grammar is empty. A lazy sampler begins where a pattern matches or a token occurs. To be called with the
/// GIL. Throws ValueError for an invalid grammar or pattern.
llama_sampler * make_grammar_sampler(const LlamaVocab & vocab, const std::string & text, const std::string & root,
                                     bool lazy, const std::vector<std::string> & patterns,
                                     const std::vector<llama_token> & tokens);

bool is_grammar_sampler(const llama_sampler * sampler);

/// Whether the grammar allows `token` as the next one.
bool grammar_allows(const llama_sampler * sampler, llama_token token);

/// The token to end with, the likeliest one, if the grammar allows nothing but an end; LLAMA_TOKEN_NULL otherwise. Logits have
/// shape (n_vocab,).
llama_token only_end(const llama_sampler * sampler, const float * logits);
