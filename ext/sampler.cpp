#include "sampler.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <set>
#include <utility>

#include "context.hpp"
#include "grammar_sampler.hpp"
#include "modules.hpp"
#include "reasoning_sampler.hpp"

SamplerHandle::~SamplerHandle() {
    if (sampler) {
        llama_sampler_free(sampler);
    }
}

// -------------------------------------------------------------------------------------------------------------- sampling

namespace {

[[noreturn]] void throw_not_numbers() {
    throw std::runtime_error(
        "the logits to sample from are not numbers (NaN): the model is damaged, or a parameter extreme");
}

llama_token most_likely(const float * logits, int32_t n_vocab) {
    const llama_token token = arg_max(logits, n_vocab);
    if (token < 0) {
        throw_not_numbers();
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

// Calls `function` with every sampler of a chain, or with one that is none.
template <class Function> void for_each(llama_sampler * sampler, Function && function) {
    if (!llama_sampler_chain_get(sampler, -1)) {
        function(sampler);
        return;
    }
    for (int i = 0; i < llama_sampler_chain_n(sampler); ++i) {
        function(llama_sampler_chain_get(sampler, i));
    }
}

void check_usable(const SamplerHandle & handle) {
    if (!handle.sampler) {
        throw std::runtime_error("the sampler belongs to a chain now: use the chain");
    }
}

void check_vocab(const SamplerHandle & handle, int32_t n_vocab) {
    if (handle.n_vocab && handle.n_vocab != n_vocab) {
        throw nb::value_error(("the sampler was made for a vocabulary of " + std::to_string(handle.n_vocab) +
                               " tokens, not of " + std::to_string(n_vocab))
                                  .c_str());
    }
}

// std::sort, which many samplers call, writes out of bounds where a comparison with NaN contradicts another one.
void check_numbers(const llama_token_data_array & array) {
    bool bad = false;
    for (size_t i = 0; i < array.size; ++i) {
        bad |= std::isnan(array.data[i].logit);
    }
    if (bad) {
        throw_not_numbers();
    }
}

// Applies the sampler, of a chain those from the `first` one on, to `handle.candidates` and returns the token that it selects.
llama_token select(SamplerHandle & handle, int first = 0) {
    llama_token_data_array array{handle.candidates.data(), handle.candidates.size(), -1, false};
    check_numbers(array);
    if (llama_sampler_chain_get(handle.sampler, -1) && !handle.in_graph) {
        const int n = llama_sampler_chain_n(handle.sampler);
        for (int i = first; i < n; ++i) {
            llama_sampler_apply(llama_sampler_chain_get(handle.sampler, i), &array);
            if (i + 1 < n) {
                check_numbers(array);
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
    handle.needed.collect(logits, n_vocab, first, handle.candidates);
    return select(handle, first);
}

// Whether a chain begins with a grammar, and all that follows may be applied twice for one token.
bool can_ask_afterwards(llama_sampler * chain) {
    const int n = llama_sampler_chain_get(chain, -1) ? llama_sampler_chain_n(chain) : 0;
    if (n < 2 || !is_grammar_sampler(llama_sampler_chain_get(chain, 0))) {
        return false;
    }
    for (int i = 1; i < n; ++i) {
        const std::string name = llama_sampler_name(llama_sampler_chain_get(chain, i));
        if (name == "mirostat" || name == "mirostat-v2" || name == "adaptive-p") { // they learn from what they select
            return false;
        }
    }
    return true;
}

// Samples as if there were no grammar, and begins anew with it if that does not fit, as common_sampler_sample does: a grammar
// that is asked about one token instead of all of them costs nothing.
llama_token sample_before_grammar(SamplerHandle & handle, const float * logits, int32_t n_vocab) {
    const bool greedy = llama_sampler_chain_n(handle.sampler) == 2 && is_greedy(llama_sampler_chain_get(handle.sampler, 1));
    const llama_token token = greedy ? most_likely(logits, n_vocab) : select_from(handle, logits, n_vocab, 1);
    const bool fits = grammar_allows(llama_sampler_chain_get(handle.sampler, 0), token);
    return fits ? token : select_from(handle, logits, n_vocab);
}

// What the samplers in the graph leave to do: nothing, or to apply the rest of the chain to the candidates they kept.
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

// Keeps the models open whose vocabulary a sampler reads.
std::vector<std::unique_ptr<ModelUse>> use_models(const SamplerHandle & handle) {
    std::vector<std::unique_ptr<ModelUse>> uses;
    for (const auto & model : handle.models) {
        uses.push_back(std::make_unique<ModelUse>(model));
    }
    return uses;
}

} // namespace

// Whether llama.cpp can run the sampler of that name as a part of a context's graph.
static bool runs_in_graph(const std::string & name) {
    static const std::set<std::string> names{"greedy", "dist",     "top-k",      "top-p",    "min-p",
                                             "temp",   "temp-ext", "logit-bias", "penalties"};
    return names.count(name) || name.rfind('?', 0) == 0; // '?': has no effect
}

void check_graph_sampler(const SamplerHandle & handle, int32_t n_vocab) {
    check_usable(handle);
    if (!llama_sampler_chain_get(handle.sampler, 0)) {
        throw nb::value_error("samplers of a context must be chains of at least one: LlamaSampler.chain([...])");
    }
    if (handle.in_graph) {
        throw nb::value_error("a sampler chain can belong to one context only, even when that is closed: use clone()");
    }
    check_vocab(handle, n_vocab);
    // What follows is what llama.cpp's graphs of samplers would answer with an abort, or with the wrong tokens.
    constexpr int kMostSelections = 2; // llama.cpp gets the shapes of a third one wrong
    bool in_order = true;              // whether the i-th candidate is token i
    bool in_graph = true;              // what follows a sampler that the graph does not know is left to the CPU
    int n_selections = 0;
    for (int i = 0; i < llama_sampler_chain_n(handle.sampler); ++i) {
        const std::string name = llama_sampler_name(llama_sampler_chain_get(handle.sampler, i));
        if (name == "reasoning-budget") {
            throw nb::value_error("reasoning_budget cannot run in the graph");
        }
        if (name == "dist" && i + 1 < llama_sampler_chain_n(handle.sampler)) {
            throw nb::value_error("dist in the graph must be the last sampler of its chain");
        }
        if ((name == "logit-bias" || name == "greedy") && !in_order) {
            throw nb::value_error((name + " in the graph cannot follow top_k, top_p or a temperature of 0").c_str());
        }
        in_graph = in_graph && runs_in_graph(name);
        n_selections += in_graph && (name == "top-k" || name == "top-p");
        if (n_selections > kMostSelections) {
            throw nb::value_error("a chain in the graph can have two of top_k and top_p, not three");
        }
        in_order = in_order && name != "top-k" && name != "top-p" && !(name.rfind("temp", 0) == 0 && handle.top_k == 1);
    }
    if (handle.n_candidates > n_vocab) {
        throw nb::value_error("the k of a top_k in the graph must not exceed the number of candidates that are left");
    }
}

llama_token sample(SamplerHandle & handle, const ContextHandle & context, int32_t index) {
    handle.lock("sampler");
    struct Unlock {
        SamplerHandle & handle;
        ~Unlock() { handle.unlock(); }
    } unlock{handle};
    check_usable(handle);
    check_vocab(handle, context.n_vocab);
    const auto uses = use_models(handle);
    const auto in_graph = context.samplers.find(context.outputs[index]);
    if (in_graph == context.samplers.end() ? handle.in_graph : in_graph->second.get() != &handle) {
        throw std::runtime_error(handle.in_graph
                                     ? "the sampler runs in a context's graph, for one sequence: use clone() elsewhere"
                                     : "the token was sampled in the graph: use the sampler that ran there "
                                       "(LlamaContextParams.samplers)");
    }
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
        token = forced_token(handle.sampler);
        if (token == LLAMA_TOKEN_NULL) {
            token = can_ask_afterwards(handle.sampler) ? sample_before_grammar(handle, logits, context.n_vocab)
                                                       : select_from(handle, logits, context.n_vocab);
        }
    }
    if (token < 0 || token >= context.n_vocab) {
        throw_not_numbers(); // what the graph makes of them
    }
    llama_sampler_accept(handle.sampler, token);
    return token;
}

// -------------------------------------------------------------------------------------------------------------- creation

namespace {

constexpr int32_t kMaxHistory = 1 << 24; // samplers allocate memory for the tokens they look back at
constexpr const char * kSeed = "`seed` makes the choice reproducible; 0xFFFFFFFF draws a random one.";

LlamaSampler own(llama_sampler * sampler) {
    if (!sampler) {
        throw std::runtime_error("llama.cpp could not create the sampler");
    }
    return {std::make_shared<SamplerHandle>(sampler)};
}

LlamaSampler own(llama_sampler * sampler, const LlamaVocab & vocab, int32_t n_vocab) {
    LlamaSampler result = own(sampler);
    result.handle->models.push_back(vocab.handle);
    result.handle->n_vocab = n_vocab;
    return result;
}

void check_finite(const char * name, float value) {
    if (!std::isfinite(value)) {
        throw nb::value_error((std::string(name) + " must be a finite number, not " + std::to_string(value)).c_str());
    }
}

void check_history(const char * name, int32_t value) {
    if (value < 0 || value > kMaxHistory) {
        throw nb::value_error(
            (std::string(name) + " must be from 0 to " + std::to_string(kMaxHistory) + ", not " + std::to_string(value))
                .c_str());
    }
}

void check_vocab_size(int32_t n_vocab) {
    if (n_vocab < 1) {
        throw nb::value_error(("n_vocab must be positive, not " + std::to_string(n_vocab)).c_str());
    }
}

LlamaSampler penalties(int32_t n_vocab, int32_t last_n, float repeat, float frequency, float presence) {
    check_vocab_size(n_vocab);
    check_history("penalty_last_n", last_n);
    check_finite("penalty_repeat", repeat);
    check_finite("penalty_freq", frequency);
    check_finite("penalty_present", presence);
    if (repeat <= 0) {
        throw nb::value_error(("penalty_repeat must be positive, not " + std::to_string(repeat)).c_str());
    }
    LlamaSampler result = own(llama_sampler_init_penalties(n_vocab, last_n, repeat, frequency, presence));
    result.handle->n_vocab = n_vocab;
    if (repeat >= 1 && frequency >= 0 && presence >= 0) {
        result.handle->effect.known = true;
        result.handle->effect.n_lowered = std::max(last_n, 0);
    }
    return result;
}

LlamaSampler logit_bias(int32_t n_vocab, const std::vector<std::pair<llama_token, float>> & biases) {
    check_vocab_size(n_vocab);
    std::vector<llama_logit_bias> items;
    std::set<llama_token> tokens;
    for (const auto & [token, bias] : biases) {
        if (token < 0 || token >= n_vocab) {
            throw nb::value_error(("token id " + std::to_string(token) + " is out of range: the vocabulary has ids 0 to " +
                                   std::to_string(n_vocab - 1))
                                      .c_str());
        }
        if (std::isnan(bias)) {
            throw nb::value_error("a bias must be a number");
        }
        items.push_back({token, bias});
        tokens.insert(token);
    }
    LlamaSampler result = own(llama_sampler_init_logit_bias(n_vocab, static_cast<int32_t>(items.size()), items.data()));
    result.handle->n_vocab = n_vocab;
    SamplerEffect & effect = result.handle->effect;
    // llama.cpp adds up the biases of a token where it sees the whole vocabulary only.
    effect.known = tokens.size() == items.size();
    for (const auto & [token, bias] : biases) {
        if (bias > 0) {
            effect.raised.push_back(token);
        } else {
            ++effect.n_lowered;
        }
    }
    return result;
}

std::vector<const char *> c_strings(const std::vector<std::string> & strings) {
    std::vector<const char *> pointers;
    for (const auto & string : strings) {
        pointers.push_back(string.c_str());
    }
    return pointers;
}

LlamaSampler dry(const LlamaVocab & vocab, float multiplier, float base, int32_t allowed_length, int32_t last_n,
                 const std::vector<std::string> & breakers) {
    LogDelivery delivery;
    ModelUse model(vocab.handle);
    model.check_vocab();
    check_finite("dry_multiplier", multiplier);
    check_finite("dry_base", base);
    check_history("dry_allowed_length", allowed_length);
    check_history("dry_penalty_last_n", last_n);
    auto pointers = c_strings(breakers);
    return own(llama_sampler_init_dry(model.vocab(), multiplier, base, allowed_length, last_n, pointers.data(),
                                      pointers.size()),
               vocab, model.n_vocab());
}

LlamaSampler grammar(const LlamaVocab & vocab, const std::string & text, const std::string & root) {
    LogDelivery delivery;
    ModelUse model(vocab.handle);
    return own(make_grammar_sampler(vocab, text, root, false, {}, {}), vocab, model.n_vocab());
}

LlamaSampler grammar_lazy(const LlamaVocab & vocab, const std::string & text, const std::string & root,
                          const std::vector<std::string> & patterns, const std::vector<llama_token> & tokens) {
    LogDelivery delivery;
    ModelUse model(vocab.handle);
    return own(make_grammar_sampler(vocab, text, root, true, patterns, tokens), vocab, model.n_vocab());
}

LlamaSampler reasoning_budget(const LlamaVocab & vocab, const std::string & start, const std::vector<std::string> & ends,
                              const std::vector<llama_token> & forced, int32_t budget, bool inside, bool anywhere) {
    ModelUse model(vocab.handle);
    LlamaSampler result =
        own(make_reasoning_sampler(vocab, start, ends, forced, budget, inside, anywhere), vocab, model.n_vocab());
    result.handle->effect.known = true; // what it forces is not selected
    return result;
}

// ----------------------------------------------------------------------------------------------------------- more of them

LlamaSampler infill(const LlamaVocab & vocab) {
    ModelUse model(vocab.handle);
    model.check_vocab();
    if (llama_vocab_eot(model.vocab()) < 0 && llama_vocab_eos(model.vocab()) < 0) {
        throw nb::value_error("infill needs a vocabulary with an end-of-turn or end-of-sequence token");
    }
    return own(llama_sampler_init_infill(model.vocab()), vocab, model.n_vocab());
}

LlamaSampler mirostat(int32_t n_vocab, uint32_t seed, float tau, float eta, int32_t m) {
    check_vocab_size(n_vocab);
    check_finite("tau", tau);
    check_finite("eta", eta);
    if (m < 2) {
        throw nb::value_error(("m must be at least 2, not " + std::to_string(m)).c_str());
    }
    LlamaSampler result = own(llama_sampler_init_mirostat(n_vocab, seed, tau, eta, m));
    result.handle->n_vocab = n_vocab;
    return result;
}

// Notes that a sampler keeps so many of the largest logits, if not 0, and changes none.
LlamaSampler keeping(int32_t n, LlamaSampler sampler) {
    sampler.handle->effect.known = true;
    sampler.handle->effect.n_kept = n;
    return sampler;
}

LlamaSampler keep_largest_if(bool condition, LlamaSampler sampler) {
    sampler.handle->top_k = condition ? 1 : 0;
    return sampler;
}

LlamaSampler checked(llama_sampler * (*create)(float), const char * name, float value) {
    check_finite(name, value);
    return own(create(value));
}

LlamaSampler checked(llama_sampler * (*create)(float, size_t), float p, size_t min_keep) {
    check_finite("p", p);
    return own(create(p, min_keep));
}

// ----------------------------------------------------------------------------------------------------------------- chain

using Handles = std::vector<std::shared_ptr<SamplerHandle>>;

// Appends all of the samplers, or none.
void chain_add(SamplerHandle & chain, const Handles & samplers) {
    std::set<SamplerHandle *> all{&chain};
    for (const auto & sampler : samplers) {
        if (!all.insert(sampler.get()).second) {
            throw nb::value_error("a chain cannot contain itself, nor a sampler twice: use clone()");
        }
    }
    std::vector<std::unique_ptr<Guard>> guards;
    for (SamplerHandle * handle : all) {
        guards.push_back(std::make_unique<Guard>(*handle, "sampler", !guards.empty()));
    }
    check_usable(chain);
    if (!llama_sampler_chain_get(chain.sampler, -1)) {
        throw nb::type_error("only a chain can be added to: LlamaSampler.chain()");
    }
    if (chain.in_graph) {
        throw std::runtime_error("the chain belongs to a context and cannot change any more");
    }
    int32_t n_vocab = chain.n_vocab;
    for (const auto & sampler : samplers) {
        check_usable(*sampler);
        if (llama_sampler_chain_get(sampler->sampler, -1)) {
            throw nb::type_error("a chain cannot be added to a chain: add its samplers");
        }
        if (n_vocab && sampler->n_vocab) {
            check_vocab(*sampler, n_vocab);
        }
        n_vocab = std::max(n_vocab, sampler->n_vocab);
    }
    chain.n_vocab = n_vocab;
    for (const auto & sampler : samplers) {
        const bool leads = llama_sampler_chain_n(chain.sampler) == 0;
        chain.needed.add(sampler->effect, leads && is_grammar_sampler(sampler->sampler));
        llama_sampler_chain_add(chain.sampler, std::exchange(sampler->sampler, nullptr));
        std::move(sampler->models.begin(), sampler->models.end(), std::back_inserter(chain.models));
        sampler->models.clear();
        if (sampler->top_k) {
            chain.n_candidates =
                chain.top_k && sampler->top_k > chain.top_k ? INT32_MAX : std::max(chain.n_candidates, sampler->top_k);
            chain.top_k = chain.top_k ? std::min(chain.top_k, sampler->top_k) : sampler->top_k;
        }
    }
}

LlamaSampler chain(const std::vector<LlamaSampler *> & samplers, bool no_perf) {
    Handles handles; // another thread may change the list, and so free the samplers, as soon as one is waited for
    for (const LlamaSampler * sampler : samplers) {
        handles.push_back(sampler ? sampler->handle : throw nb::type_error("a sampler is None"));
    }
    llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf = no_perf;
    LlamaSampler result = own(llama_sampler_chain_init(params));
    chain_add(*result.handle, handles);
    return result;
}

std::vector<std::string> names(const LlamaSampler & self) {
    Guard guard(*self.handle, "sampler");
    check_usable(*self.handle);
    std::vector<std::string> result;
    for_each(self.handle->sampler, [&](llama_sampler * sampler) { result.emplace_back(llama_sampler_name(sampler)); });
    return result;
}

void accept_tokens(LlamaSampler & self, const std::vector<llama_token> & tokens) {
    Guard guard(*self.handle, "sampler");
    check_usable(*self.handle);
    const auto uses = use_models(*self.handle);
    for (llama_token token : tokens) {
        if (token < 0 || token == INT32_MAX || (self.handle->n_vocab && token >= self.handle->n_vocab)) {
            throw nb::value_error(("token id " + std::to_string(token) + " is out of range").c_str());
        }
    }
    WithoutGil release;
    for (llama_token token : tokens) {
        llama_sampler_accept(self.handle->sampler, token);
    }
}

LlamaSampler clone_sampler(const LlamaSampler & self) {
    Guard guard(*self.handle, "sampler");
    check_usable(*self.handle);
    const auto uses = use_models(*self.handle);
    for_each(self.handle->sampler, [](llama_sampler * sampler) {
        // A selection that was never accepted would make the copy, which lacks its data, read out of bounds. An id that no
        // token has makes adaptive_p forget it.
        if (std::strcmp(llama_sampler_name(sampler), "adaptive-p") == 0) {
            llama_sampler_accept(sampler, INT32_MAX);
        }
    });
    LlamaSampler result = own(llama_sampler_clone(self.handle->sampler));
    result.handle->effect = self.handle->effect;
    result.handle->needed = self.handle->needed;
    result.handle->models = self.handle->models;
    result.handle->n_vocab = self.handle->n_vocab;
    result.handle->top_k = self.handle->top_k;
    result.handle->n_candidates = self.handle->n_candidates;
    return result;
}

llama_token sample_output(LlamaSampler & self, const LlamaContext & context, int32_t index) {
    ContextUse use(context);
    const int32_t i = use.check_output(index);
    WithoutGil release;
    return sample(*self.handle, *use, i);
}

void init_factories(nb::class_<LlamaSampler> & c) {
    c.def_static(
         "greedy", [] { return keeping(1, own(llama_sampler_init_greedy())); }, "Select the most likely token.")
        .def_static(
            "dist", [](uint32_t seed) { return own(llama_sampler_init_dist(seed)); }, nb::arg("seed") = LLAMA_DEFAULT_SEED,
            (std::string("Select a token at random, by probability. ") + kSeed).c_str())
        .def_static(
            "top_k",
            [](int32_t k) {
                LlamaSampler result = keeping(std::max(k, 0), own(llama_sampler_init_top_k(k)));
                result.handle->top_k = std::max(k, 0);
                return result;
            },
            nb::arg("k"), "Keep the k most likely tokens; k <= 0 keeps all (https://arxiv.org/abs/1904.09751).")
        .def_static(
            "top_p", [](float p, size_t min_keep) { return checked(llama_sampler_init_top_p, p, min_keep); }, nb::arg("p"),
            nb::arg("min_keep") = 0,
            "Keep the most likely tokens whose probabilities add up to p (https://arxiv.org/abs/1904.09751).")
        .def_static(
            "min_p", [](float p, size_t min_keep) { return checked(llama_sampler_init_min_p, p, min_keep); }, nb::arg("p"),
            nb::arg("min_keep") = 0, "Keep tokens at least p times as likely as the most likely one (llama.cpp #3841).")
        .def_static(
            "typical", [](float p, size_t min_keep) { return checked(llama_sampler_init_typical, p, min_keep); },
            nb::arg("p"), nb::arg("min_keep") = 0, "Locally typical sampling (https://arxiv.org/abs/2202.00666).")
        .def_static(
            "temp", [](float t) { return keep_largest_if(t <= 0, checked(llama_sampler_init_temp, "t", t)); }, nb::arg("t"),
            "Divide the logits by t; t <= 0 keeps the largest only.")
        .def_static(
            "temp_ext",
            [](float t, float delta, float exponent) {
                check_finite("t", t);
                check_finite("delta", delta);
                check_finite("exponent", exponent);
                return keep_largest_if(t <= 0, own(llama_sampler_init_temp_ext(t, delta, exponent)));
            },
            nb::arg("t"), nb::arg("delta"), nb::arg("exponent"),
            "Dynamic temperature, by entropy (https://arxiv.org/abs/2309.02772).")
        .def_static(
            "xtc",
            [](float p, float t, size_t min_keep, uint32_t seed) {
                check_finite("p", p);
                check_finite("t", t);
                return own(llama_sampler_init_xtc(p, t, min_keep, seed));
            },
            nb::arg("p"), nb::arg("t"), nb::arg("min_keep") = 0, nb::arg("seed") = LLAMA_DEFAULT_SEED,
            (std::string("With probability p, exclude all but the least likely token above t. ") + kSeed).c_str())
        .def_static(
            "top_n_sigma", [](float n) { return checked(llama_sampler_init_top_n_sigma, "n", n); }, nb::arg("n"),
            "Keep tokens within n standard deviations of the largest logit (https://arxiv.org/abs/2411.07641).")
        .def_static("mirostat", &mirostat, nb::arg("n_vocab"), nb::arg("seed"), nb::arg("tau"), nb::arg("eta"),
                    nb::arg("m") = 100,
                    "Mirostat 1.0: select with a target surprise of tau (https://arxiv.org/abs/2007.14966).")
        .def_static(
            "mirostat_v2",
            [](uint32_t seed, float tau, float eta) {
                check_finite("tau", tau);
                check_finite("eta", eta);
                return own(llama_sampler_init_mirostat_v2(seed, tau, eta));
            },
            nb::arg("seed"), nb::arg("tau"), nb::arg("eta"), "Mirostat 2.0 (https://arxiv.org/abs/2007.14966).")
        .def_static("grammar", &grammar, nb::arg("vocab"), nb::arg("grammar"), nb::arg("root") = "root",
                    "Keep tokens that continue a text of a GBNF grammar. Raises ValueError if it cannot be parsed.")
        .def_static("grammar_lazy", &grammar_lazy, nb::arg("vocab"), nb::arg("grammar"), nb::arg("root"),
                    nb::arg("trigger_patterns"), nb::arg("trigger_tokens"),
                    "A grammar that begins where a regular expression matches or a token appears (llama.cpp #9639).")
        .def_static(
            "reasoning_budget", &reasoning_budget, nb::arg("vocab"), nb::arg("start"), nb::arg("ends"), nb::arg("forced"),
            nb::arg("budget"), nb::arg("inside") = false, nb::arg("anywhere") = false,
            "Let nothing but the tokens `forced` follow after `budget` tokens of reasoning, which begins with the\n"
            "text `start` and ends with one of `ends`.\n\n"
            "`inside` if the prompt ends within reasoning; `anywhere` if it may begin behind other text as well. In a\n"
            "chain with a grammar, only what that allows is forced.")
        .def_static("penalties", &penalties, nb::arg("n_vocab"), nb::arg("penalty_last_n"),
                    nb::arg("penalty_repeat") = 1.0f, nb::arg("penalty_freq") = 0.0f, nb::arg("penalty_present") = 0.0f,
                    "Make tokens less likely that are among the last `penalty_last_n` accepted ones.")
        .def_static("dry", &dry, nb::arg("vocab"), nb::arg("dry_multiplier"), nb::arg("dry_base") = 1.75f,
                    nb::arg("dry_allowed_length") = 2, nb::arg("dry_penalty_last_n") = 64,
                    nb::arg("seq_breakers") = std::vector<std::string>{"\n", ":", "\"", "*"},
                    "Make tokens less likely that would extend a repetition (text-generation-webui #5677).")
        .def_static(
            "adaptive_p",
            [](float target, float decay, uint32_t seed) {
                check_finite("target", target);
                if (!(decay >= 0.0f && decay <= 0.99f)) {
                    throw nb::value_error("decay must be from 0 to 0.99");
                }
                return own(llama_sampler_init_adaptive_p(target, decay, seed));
            },
            nb::arg("target"), nb::arg("decay") = 0.9f, nb::arg("seed") = LLAMA_DEFAULT_SEED,
            "Select tokens near a target probability over time (llama.cpp #17927).")
        .def_static("logit_bias", &logit_bias, nb::arg("n_vocab"), nb::arg("logit_bias"),
                    "Add a bias to the logits of the tokens in pairs of (token id, bias).")
        .def_static("infill", &infill, nb::arg("vocab"), "For fill-in-the-middle, after top_k and top_p.")
        .def_static("chain", &chain, nb::arg("samplers") = std::vector<LlamaSampler *>(), nb::arg("no_perf") = true,
                    "Samplers applied one after the other. The chain takes them over: they cannot be used alone any more.");
}

} // namespace

void init_sampler(nb::module_ & m) {
    m.attr("LLAMA_DEFAULT_SEED") = LLAMA_DEFAULT_SEED;
    nb::class_<LlamaSampler> sampler(
        m, "LlamaSampler",
        "Chooses the next token (llama_sampler): one method, or a chain of them that ends with\n"
        "one that selects (greedy, dist, mirostat, mirostat_v2, adaptive_p).\n\n"
        ">>> sampler = LlamaSampler.chain([\n"
        "...     LlamaSampler.top_k(40), LlamaSampler.temp(0.8), LlamaSampler.dist(seed=1)\n"
        "... ])\n"
        ">>> token = sampler.sample(context)");
    init_factories(sampler);
    sampler
        .def("sample", &sample_output, nb::arg("context"), nb::arg("i") = -1,
             "Select a token from output `i` of the context's last decode, and accept it.\n\n"
             "Raises IndexError if there is no such output, RuntimeError if the sampler selects none.")
        .def("accept", &accept_tokens, nb::arg("tokens"),
             "Tell the sampler of tokens that it did not sample, such as a prompt.")
        .def(
            "add", [](LlamaSampler & self, LlamaSampler & sampler) { chain_add(*self.handle, {sampler.handle}); },
            nb::arg("sampler"), "Append a sampler to a chain, which takes it over.")
        .def(
            "reset",
            [](LlamaSampler & self) {
                Guard guard(*self.handle, "sampler");
                check_usable(*self.handle);
                const auto uses = use_models(*self.handle);
                llama_sampler_reset(self.handle->sampler);
            },
            "Forget what was accepted.")
        .def("clone", &clone_sampler, "An independent copy in the same state.")
        .def_prop_ro(
            "seed",
            [](const LlamaSampler & self) {
                Guard guard(*self.handle, "sampler");
                check_usable(*self.handle);
                return llama_sampler_get_seed(self.handle->sampler);
            },
            "The seed in use, 0xFFFFFFFF where none applies.")
        .def_prop_ro("names", &names, "What it consists of.")
        .def("__len__", [](const LlamaSampler & self) { return names(self).size(); })
        .def("__repr__", [](const LlamaSampler & self) {
            {
                Guard guard(*self.handle, "sampler");
                if (!self.handle->sampler) {
                    return std::string("<LlamaSampler (part of a chain)>");
                }
            }
            std::string text = "<LlamaSampler";
            for (const auto & name : names(self)) {
                text += " " + name;
            }
            return text + ">";
        });
}
