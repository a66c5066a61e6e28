// A sampler that limits the tokens of a model's reasoning.
#pragma once

#include <string>
#include <vector>

#include "model.hpp"

/// Makes a sampler that counts the tokens of reasoning, which begins with the text `start` and ends with one of `ends`.
/// After `budget` tokens it lets only the tokens `forced` follow. `inside`: the prompt ends within reasoning; `anywhere`:
/// reasoning may begin behind other text, and again. Throws ValueError for empty texts, no forced token or a negative
/// budget.
llama_sampler * make_reasoning_sampler(const LlamaVocab & vocab, const std::string & start,
                                       const std::vector<std::string> & ends, const std::vector<llama_token> & forced,
                                       int32_t budget, bool inside, bool anywhere);

bool is_reasoning_sampler(const llama_sampler * sampler);

/// The token that a chain of samplers must select, or LLAMA_TOKEN_NULL if it may choose: a forced token that a grammar of
/// the chain does not allow is not forced.
llama_token forced_token(llama_sampler * chain);
