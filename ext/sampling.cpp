#include "sampling.hpp"

#include <nanobind/nanobind.h>

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "grammar_sampler.hpp"
#include "modules.hpp"
#include "reasoning_sampler.hpp"

namespace {

[[noreturn]] void throw_nan() {
    throw std::runtime_error(
        "the logits to sample from are not numbers (NaN): the model is damaged, or a parameter extreme");
}

llama_token most_likely(const float * logits, int32_t n_vocab) {
    const llama_token token = arg_max(logits, n_vocab);
    if (token < 0) {
        throw_nan();
    }
    return token;
}

bool is_greedy(const llama_sampler * sampler) {
    if (llama_sampler * only = llama_sampler_chain_get(const_cast<llama_sampler *>(sampler), -1);
        only && llama_sampler_chain_n(sampler) == 1) {
        sampler = llama_sampler_chain_get(only, 0);
    }
    return std::strcmp(llama_sampler_name(sampler), "greedy") == 0;
}

// std::sort, which many samplers call, writes out of bounds if comparisons with NaN contradict each other.
void check_no_nan(const llama_token_data_array & array) {
    bool found = false;
    for (size_t i = 0; i < array.size; ++i) {
        found |= std::isnan(array.data[i].logit);
    }
    if (found) {
        throw_nan();
    }
}

// Applies the sampler to `handle.candidates` (of a chain: its samplers from the start on) and returns the token that it
// selects.
llama_token select(SamplerHandle & handle, Start start = {}) {
    llama_token_data_array array{handle.candidates.data(), handle.candidates.size(), -1, start.sorted};
    check_no_nan(array);
    if (handle.is_chain() && !handle.in_graph) {
        const int n = llama_sampler_chain_n(handle.sampler);
        for (int i = start.sampler; i < n; ++i) {
            if (!handle.needed.apply(i, array)) {
                llama_sampler_apply(llama_sampler_chain_get(handle.sampler, i), &array);
            }
            if (i + 1 < n) {
                check_no_nan(array);
            }
        }
    } else {
        llama_sampler_apply(handle.sampler, &array);
    }
    if (array.selected < 0 || array.selected >= static_cast<int64_t>(array.size)) {
        throw std::runtime_error("the sampler selects no token: a chain must end with one that does, such as "
                                 "LlamaSampler.greedy() or LlamaSampler.dist()");
    }
    return array.data[array.selected].id;
}

llama_token select_from(SamplerHandle & handle, const float * logits, int32_t n_vocab, int first = 0) {
    return select(handle, handle.needed.collect(logits, n_vocab, first, handle.candidates));
}

// The number of samplers in a chain that begins with a grammar; 0 for any other sampler.
int n_from_grammar(llama_sampler * sampler) {
    const int n = llama_sampler_chain_get(sampler, -1) ? llama_sampler_chain_n(sampler) : 0;
    return n > 0 && is_grammar_sampler(llama_sampler_chain_get(sampler, 0)) ? n : 0;
}

// Applies the whole chain. A grammar that can only end does so where biases forbid every end. Throws where no other token is left.
llama_token select_that_fits(SamplerHandle & handle, const float * logits, int32_t n_vocab) {
    const llama_token token = select_from(handle, logits, n_vocab);
    if (n_from_grammar(handle.sampler) == 0 || grammar_allows(llama_sampler_chain_get(handle.sampler, 0), token)) {
        return token;
    }
    const llama_token end = only_end(llama_sampler_chain_get(handle.sampler, 0), logits);
    if (end == LLAMA_TOKEN_NULL) {
        throw std::runtime_error(
            "no token is left: logit biases forbid every one that the grammar allows here, or it allows none");
    }
    return end;
}

// Whether a chain begins with a grammar, and its other samplers may be applied twice for one token.
bool can_ask_afterwards(llama_sampler * chain) {
    const int n = n_from_grammar(chain);
    for (int i = 1; i < n; ++i) {
        const std::string name = llama_sampler_name(llama_sampler_chain_get(chain, i));
        if (name == "mirostat" || name == "mirostat-v2" ||
            name == "adaptive-p") { // they adapt to each token that they select
            return false;
        }
    }
    return n > 1;
}

// Samples without the grammar, and again with it if the grammar does not allow the token, as common_sampler_sample does: to
// check one token with the grammar costs little, to check all of them much.
llama_token sample_before_grammar(SamplerHandle & handle, const float * logits, int32_t n_vocab) {
    const bool greedy = llama_sampler_chain_n(handle.sampler) == 2 && is_greedy(llama_sampler_chain_get(handle.sampler, 1));
    const llama_token token = greedy ? most_likely(logits, n_vocab) : select_from(handle, logits, n_vocab, 1);
    const bool fits = grammar_allows(llama_sampler_chain_get(handle.sampler, 0), token);
    return fits ? token : select_that_fits(handle, logits, n_vocab);
}

// Completes the work of samplers in the graph: applies the rest of the chain, if there is one, to the candidates they kept.
llama_token finish_graph(SamplerHandle & handle, llama_context * context, int32_t index) {
    const llama_token token = llama_get_sampled_token_ith(context, index);
    if (token != LLAMA_TOKEN_NULL) {
        return token;
    }
    const float * logits = llama_get_sampled_logits_ith(context, index);
    const llama_token * ids = llama_get_sampled_candidates_ith(context, index);
    if (!logits || !ids) {
        throw std::runtime_error("the context has no candidates to sample from");
    }
    handle.candidates.resize(llama_get_sampled_logits_count_ith(context, index));
    for (size_t i = 0; i < handle.candidates.size(); ++i) {
        handle.candidates[i] = {ids[i], logits[i], 0.0f};
    }
    return select(handle);
}

// Throws unless the output `index` was sampled where this sampler runs: in the graph, or not.
void check_place(const SamplerHandle & handle, const ContextHandle & context, int32_t index) {
    const auto in_graph = context.samplers.find(context.outputs[index]);
    if (in_graph == context.samplers.end() ? handle.in_graph : in_graph->second.get() != &handle) {
        throw std::runtime_error(handle.in_graph
                                     ? "the sampler runs in a context's graph, for one sequence: use clone() elsewhere"
                                     : "the token was sampled in the graph: use the sampler that ran there "
                                       "(LlamaContextParams.samplers)");
    }
}

// Selects a token from logits, which have shape (n_vocab,).
llama_token select_token(SamplerHandle & handle, const float * logits, int32_t n_vocab) {
    const llama_token forced = forced_token(handle.sampler);
    if (forced != LLAMA_TOKEN_NULL) {
        return forced;
    }
    return can_ask_afterwards(handle.sampler) ? sample_before_grammar(handle, logits, n_vocab)
                                              : select_that_fits(handle, logits, n_vocab);
}

class SamplerLock {
  public:
    explicit SamplerLock(SamplerHandle & handle) : handle_(handle) { handle_.lock("sampler"); }
    ~SamplerLock() { handle_.unlock(); }
    SamplerLock(const SamplerLock &) = delete;
    SamplerLock & operator=(const SamplerLock &) = delete;

  private:
    SamplerHandle & handle_;
};

} // namespace

llama_token sample(SamplerHandle & handle, const ContextHandle & context, int32_t index) {
    const SamplerLock lock(handle);
    handle.check_usable();
    handle.check_vocab(context.n_vocab);
    const auto uses = handle.use_models();
    check_place(handle, context, index);
    llama_token token = LLAMA_TOKEN_NULL;
    if (handle.in_graph) {
        token = finish_graph(handle, context.context, index);
    } else {
        const float * logits = llama_get_logits_ith(context.context, index);
        if (!logits) {
            throw std::runtime_error("the context has no logits to sample from");
        }
        if (is_greedy(handle.sampler)) {
            return most_likely(logits, context.n_vocab);
        }
        token = select_token(handle, logits, context.n_vocab);
    }
    if (token < 0 || token >= context.n_vocab) {
        throw_nan(); // the graph returns such an id for logits of NaN
    }
    llama_sampler_accept(handle.sampler, token);
    return token;
}

static llama_token sample_output(LlamaSampler & self, const LlamaContext & context, int32_t index) {
    ContextUse use(context);
    const int32_t i = use.check_output(index);
    WithoutGil release;
    return sample(*self.handle, *use, i);
}

void init_sampling(nb::class_<LlamaSampler> & sampler) {
    sampler.def("sample", &sample_output, nb::arg("context"), nb::arg("i") = -1, R"doc(
            Select a token from an output of the context's last decode, and accept it (llama_sampler_sample).

            Args:
                context: The context.
                i: Index of a token in the batch; -1 is the last token with an output, -2 the one before.

            Returns:
                Token id.

            Raises:
                IndexError: There is no such output.
                ValueError: The sampler was made for a vocabulary of another size.
                RuntimeError: The sampler selects no token, a logit is NaN, a grammar takes too much work, or the sampler
                    belongs to a chain.
            )doc");
}
