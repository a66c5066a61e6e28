#include "sampler.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "context.hpp"
#include "modules.hpp"

SamplerHandle::~SamplerHandle() {
    if (sampler) {
        llama_sampler_free(sampler);
    }
}

// -------------------------------------------------------------------------------------------------------------- sampling

namespace {

// The first index of the largest value; values that are no number are never it. The lanes let the compiler use vectors.
llama_token arg_max(const float * values, int32_t n) {
    constexpr int32_t kLanes = 32;
    float best[kLanes];
    std::fill(best, best + kLanes, -INFINITY);
    int32_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (int32_t lane = 0; lane < kLanes; ++lane) {
            best[lane] = values[i + lane] > best[lane] ? values[i + lane] : best[lane];
        }
    }
    float max = -INFINITY;
    for (float value : best) {
        max = value > max ? value : max;
    }
    for (; i < n; ++i) {
        max = values[i] > max ? values[i] : max;
    }
    const float * found = std::find(values, values + n, max);
    return found == values + n ? 0 : static_cast<llama_token>(found - values);
}

bool is_greedy(const llama_sampler * sampler) {
    if (llama_sampler * only = llama_sampler_chain_get(const_cast<llama_sampler *>(sampler), -1);
        only && llama_sampler_chain_n(sampler) == 1) {
        sampler = llama_sampler_chain_get(only, 0);
    }
    return std::strcmp(llama_sampler_name(sampler), "greedy") == 0;
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

llama_token sample_candidates(SamplerHandle & handle, const float * logits, int32_t n_vocab) {
    auto & candidates = handle.candidates;
    candidates.resize(static_cast<size_t>(n_vocab));
    for (llama_token token = 0; token < n_vocab; ++token) {
        candidates[static_cast<size_t>(token)] = {token, logits[token], 0.0f};
    }
    llama_token_data_array array{candidates.data(), candidates.size(), -1, false};
    llama_sampler_apply(handle.sampler, &array);
    if (array.selected < 0 || array.selected >= static_cast<int64_t>(array.size)) {
        throw std::runtime_error("the sampler selects no token: a chain must end with one that does, such as "
                                 "LlamaSampler.greedy() or LlamaSampler.dist()");
    }
    return array.data[array.selected].id;
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

llama_token sample(SamplerHandle & handle, llama_context * context, int32_t index) {
    handle.lock("sampler");
    struct Unlock {
        SamplerHandle & handle;
        ~Unlock() { handle.unlock(); }
    } unlock{handle};
    check_usable(handle);
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(context)));
    check_vocab(handle, n_vocab);
    const auto uses = use_models(handle);
    if (handle.in_graph && llama_get_sampled_token_ith(context, index) != LLAMA_TOKEN_NULL) {
        return llama_sampler_sample(handle.sampler, context, index);
    }
    const float * logits = llama_get_logits_ith(context, index);
    if (!logits) {
        throw std::runtime_error("the context has no logits to sample from");
    }
    if (is_greedy(handle.sampler)) {
        return arg_max(logits, n_vocab);
    }
    const llama_token token = sample_candidates(handle, logits, n_vocab);
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
        throw nb::value_error((std::string(name) + " must be from 0 to " + std::to_string(kMaxHistory) + ", not " +
                               std::to_string(value))
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
    return result;
}

LlamaSampler logit_bias(int32_t n_vocab, const std::vector<std::pair<llama_token, float>> & biases) {
    check_vocab_size(n_vocab);
    std::vector<llama_logit_bias> items;
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
    }
    LlamaSampler result = own(llama_sampler_init_logit_bias(n_vocab, static_cast<int32_t>(items.size()), items.data()));
    result.handle->n_vocab = n_vocab;
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
    ModelUse model(vocab.handle);
    check_finite("dry_multiplier", multiplier);
    check_finite("dry_base", base);
    check_history("dry_allowed_length", allowed_length);
    check_history("dry_penalty_last_n", last_n);
    auto pointers = c_strings(breakers);
    return own(llama_sampler_init_dry(model.vocab(), multiplier, base, allowed_length, last_n, pointers.data(),
                                      pointers.size()),
               vocab, model.n_vocab());
}

void check_grammar(const std::string & grammar) {
    if (grammar.rfind("%llguidance", 0) == 0) {
        throw nb::value_error("this build has no llguidance: write the grammar in GBNF");
    }
}

LlamaSampler finish_grammar(llama_sampler * sampler, const LlamaVocab & vocab, int32_t n_vocab) {
    if (!sampler) {
        throw nb::value_error(("the grammar cannot be parsed: " + logged_errors("see GBNF's documentation")).c_str());
    }
    return own(sampler, vocab, n_vocab);
}

LlamaSampler grammar(const LlamaVocab & vocab, const std::string & text, const std::string & root) {
    LogDelivery delivery;
    ModelUse model(vocab.handle);
    check_grammar(text);
    clear_logged_errors();
    return finish_grammar(llama_sampler_init_grammar(model.vocab(), text.c_str(), root.c_str()), vocab, model.n_vocab());
}

LlamaSampler grammar_lazy(const LlamaVocab & vocab, const std::string & text, const std::string & root,
                          const std::vector<std::string> & patterns, const std::vector<llama_token> & tokens) {
    LogDelivery delivery;
    ModelUse model(vocab.handle);
    check_grammar(text);
    for (llama_token token : tokens) {
        model.check_token(token);
    }
    clear_logged_errors();
    auto pointers = c_strings(patterns);
    return finish_grammar(llama_sampler_init_grammar_lazy_patterns(model.vocab(), text.c_str(), root.c_str(),
                                                                  pointers.data(), pointers.size(), tokens.data(),
                                                                  tokens.size()),
                          vocab, model.n_vocab());
}

LlamaSampler infill(const LlamaVocab & vocab) {
    ModelUse model(vocab.handle);
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

LlamaSampler checked(llama_sampler * (*create)(float), const char * name, float value) {
    check_finite(name, value);
    return own(create(value));
}

LlamaSampler checked(llama_sampler * (*create)(float, size_t), float p, size_t min_keep) {
    check_finite("p", p);
    return own(create(p, min_keep));
}

// ----------------------------------------------------------------------------------------------------------------- chain

void chain_add(LlamaSampler & chain, LlamaSampler & sampler) {
    if (chain.handle == sampler.handle) {
        throw nb::value_error("a chain cannot contain itself");
    }
    Guard chain_guard(*chain.handle, "sampler");
    Guard guard(*sampler.handle, "sampler");
    check_usable(*chain.handle);
    check_usable(*sampler.handle);
    if (!llama_sampler_chain_get(chain.handle->sampler, -1)) {
        throw nb::type_error("only a chain can be added to: LlamaSampler.chain()");
    }
    if (llama_sampler_chain_get(sampler.handle->sampler, -1)) {
        throw nb::type_error("a chain cannot be added to a chain: add its samplers");
    }
    if (chain.handle->in_graph) {
        throw std::runtime_error("the chain belongs to a context and cannot change any more");
    }
    if (chain.handle->n_vocab && sampler.handle->n_vocab) {
        check_vocab(*sampler.handle, chain.handle->n_vocab);
    }
    llama_sampler_chain_add(chain.handle->sampler, sampler.handle->sampler);
    sampler.handle->sampler = nullptr;
    chain.handle->n_vocab = std::max(chain.handle->n_vocab, sampler.handle->n_vocab);
    for (auto & model : sampler.handle->models) {
        chain.handle->models.push_back(std::move(model));
    }
    sampler.handle->models.clear();
}

LlamaSampler chain(const std::vector<LlamaSampler *> & samplers, bool no_perf) {
    llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf = no_perf;
    LlamaSampler result = own(llama_sampler_chain_init(params));
    for (LlamaSampler * sampler : samplers) {
        chain_add(result, *sampler);
    }
    return result;
}

std::vector<std::string> names(const LlamaSampler & self) {
    Guard guard(*self.handle, "sampler");
    check_usable(*self.handle);
    std::vector<std::string> result;
    if (llama_sampler_chain_get(self.handle->sampler, -1)) {
        for (int32_t i = 0; i < llama_sampler_chain_n(self.handle->sampler); ++i) {
            result.emplace_back(llama_sampler_name(llama_sampler_chain_get(self.handle->sampler, i)));
        }
    } else {
        result.emplace_back(llama_sampler_name(self.handle->sampler));
    }
    return result;
}

void accept_tokens(LlamaSampler & self, const std::vector<llama_token> & tokens) {
    Guard guard(*self.handle, "sampler");
    check_usable(*self.handle);
    const auto uses = use_models(*self.handle);
    for (llama_token token : tokens) {
        if (token < 0 || (self.handle->n_vocab && token >= self.handle->n_vocab)) {
            throw nb::value_error(("token id " + std::to_string(token) + " is out of range").c_str());
        }
    }
    for (llama_token token : tokens) {
        llama_sampler_accept(self.handle->sampler, token);
    }
}

LlamaSampler clone_sampler(const LlamaSampler & self) {
    Guard guard(*self.handle, "sampler");
    check_usable(*self.handle);
    const auto uses = use_models(*self.handle);
    LlamaSampler result = own(llama_sampler_clone(self.handle->sampler));
    result.handle->models = self.handle->models;
    result.handle->n_vocab = self.handle->n_vocab;
    return result;
}

llama_token sample_output(LlamaSampler & self, const LlamaContext & context, int32_t index) {
    ContextUse use(context);
    use.check_output(index);
    nb::gil_scoped_release release;
    return sample(*self.handle, use.get(), index);
}

void init_factories(nb::class_<LlamaSampler> & c) {
    c.def_static(
         "greedy", [] { return own(llama_sampler_init_greedy()); }, "Select the most likely token.")
        .def_static(
            "dist", [](uint32_t seed) { return own(llama_sampler_init_dist(seed)); },
            nb::arg("seed") = LLAMA_DEFAULT_SEED,
            (std::string("Select a token at random, by probability. ") + kSeed).c_str())
        .def_static(
            "top_k", [](int32_t k) { return own(llama_sampler_init_top_k(k)); }, nb::arg("k"),
            "Keep the k most likely tokens; k <= 0 keeps all (https://arxiv.org/abs/1904.09751).")
        .def_static(
            "top_p", [](float p, size_t min_keep) { return checked(llama_sampler_init_top_p, p, min_keep); },
            nb::arg("p"), nb::arg("min_keep") = 0,
            "Keep the most likely tokens whose probabilities add up to p (https://arxiv.org/abs/1904.09751).")
        .def_static(
            "min_p", [](float p, size_t min_keep) { return checked(llama_sampler_init_min_p, p, min_keep); },
            nb::arg("p"), nb::arg("min_keep") = 0,
            "Keep tokens at least p times as likely as the most likely one (llama.cpp #3841).")
        .def_static(
            "typical", [](float p, size_t min_keep) { return checked(llama_sampler_init_typical, p, min_keep); },
            nb::arg("p"), nb::arg("min_keep") = 0, "Locally typical sampling (https://arxiv.org/abs/2202.00666).")
        .def_static(
            "temp", [](float t) { return checked(llama_sampler_init_temp, "t", t); }, nb::arg("t"),
            "Divide the logits by t; t <= 0 keeps the largest only.")
        .def_static(
            "temp_ext",
            [](float t, float delta, float exponent) {
                check_finite("t", t);
                check_finite("delta", delta);
                check_finite("exponent", exponent);
                return own(llama_sampler_init_temp_ext(t, delta, exponent));
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
                    nb::arg("m") = 100, "Mirostat 1.0: select with a target surprise of tau (https://arxiv.org/abs/2007.14966).")
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
        .def_static("penalties", &penalties, nb::arg("n_vocab"), nb::arg("penalty_last_n"), nb::arg("penalty_repeat") = 1.0f,
                    nb::arg("penalty_freq") = 0.0f, nb::arg("penalty_present") = 0.0f,
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
    nb::class_<LlamaSampler> sampler(m, "LlamaSampler",
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
        .def("accept", &accept_tokens, nb::arg("tokens"), "Tell the sampler of tokens that it did not sample, such as a prompt.")
        .def("add", &chain_add, nb::arg("sampler"), "Append a sampler to a chain, which takes it over.")
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
            if (!self.handle->sampler) {
                return std::string("<LlamaSampler (part of a chain)>");
            }
            std::string text = "<LlamaSampler";
            for (const auto & name : names(self)) {
                text += " " + name;
            }
            return text + ">";
        });
}
