// Sampling that ends a model's reasoning after so many tokens.
#pragma once

#include <string>
#include <vector>

#include "model.hpp"

/// Makes a sampler that counts the tokens of reasoning, which begins with the text `start` and ends with one of `ends`, and
/// after `budget` of them lets nothing follow but the tokens `forced`. `inside` if the prompt ends within reasoning;
/// `anywhere` if reasoning may begin again behind other text. Throws nb::value_error for what cannot be looked for.
llama_sampler * make_reasoning_sampler(const LlamaVocab & vocab, const std::string & start,
                                       const std::vector<std::string> & ends, const std::vector<llama_token> & forced,
                                       int32_t budget, bool inside, bool anywhere);

bool is_reasoning_sampler(const llama_sampler * sampler);

/// The token that a chain of samplers has to select, or LLAMA_TOKEN_NULL if it may choose: a grammar in the chain is asked.
llama_token forced_token(llama_sampler * chain);
