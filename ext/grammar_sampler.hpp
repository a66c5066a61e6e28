// Sampling under a grammar.
#pragma once

#include <string>
#include <vector>

#include "model.hpp"

/// Makes a sampler that keeps the tokens which continue a text of a GBNF grammar, valid UTF-8 all along; all tokens if the
/// grammar is empty. A lazy one begins where a pattern matches or a token appears. To be called with the GIL. Throws
/// nb::value_error for what is no grammar or no pattern.
llama_sampler * make_grammar_sampler(const LlamaVocab & vocab, const std::string & text, const std::string & root,
                                     bool lazy, const std::vector<std::string> & patterns,
                                     const std::vector<llama_token> & tokens);

bool is_grammar_sampler(const llama_sampler * sampler);

/// Whether a token may come next.
bool grammar_allows(const llama_sampler * sampler, llama_token token);
