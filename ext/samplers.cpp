// The samplers that Python can make: static methods of LlamaSampler.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>

#include "errors.hpp"
#include "grammar_sampler.hpp"
#include "guard.hpp"
#include "mirostat_sampler.hpp"
#include "modules.hpp"
#include "reasoning_sampler.hpp"
#include "sampler.hpp"
#include "xtc_sampler.hpp"

namespace {

LlamaSampler own(llama_sampler * sampler, const LlamaVocab & vocab, int32_t n_vocab) {
    LlamaSampler result = own_sampler(sampler);
    result.handle->models.push_back(vocab.handle);
    result.handle->n_vocab = n_vocab;
    return result;
}

// Samplers allocate memory for the tokens they look back at.
void check_history(const char * name, int32_t value) { check_range(name, value, 0, 1 << 24); }

void check_vocab_size(int32_t n_vocab) {
    if (n_vocab < 1) {
        throw_value_error("n_vocab must be positive, not " + std::to_string(n_vocab));
    }
}

// Notes that a sampler keeps only the `n` largest logits (0: all), and changes none.
LlamaSampler keeping(int32_t n, LlamaSampler sampler) {
    sampler.handle->effect.known = true;
    sampler.handle->effect.n_kept = n;
    return sampler;
}

LlamaSampler top_k(int32_t k) {
    LlamaSampler result = keeping(std::max(k, 0), own_sampler(llama_sampler_init_top_k(k)));
    result.handle->top_k = std::max(k, 0);
    return result;
}

// A sampler that keeps tokens by a probability, at least `min_keep`. It keeps one anyway.
template <auto create, Cut::Kind kind> LlamaSampler by_probability(float p, size_t min_keep) {
    check_finite("p", p);
    LlamaSampler result = own_sampler(create(p, min_keep));
    const bool keeps_all = kind == Cut::Kind::kMinP ? p <= 0.0f : p >= 1.0f;
    if (min_keep <= 1 && !keeps_all) {
        result.handle->effect.cut = {kind, p};
    }
    return result;
}

// A temperature of 0 or less keeps the largest logit only.
LlamaSampler with_temperature(float t, LlamaSampler sampler) {
    sampler.handle->top_k = t <= 0 ? 1 : 0;
    return sampler;
}

LlamaSampler temp(float t) {
    check_finite("t", t);
    LlamaSampler result = with_temperature(t, own_sampler(llama_sampler_init_temp(t)));
    result.handle->effect.simple = t > 0.0f;
    result.handle->effect.divisor = t;
    return result;
}

LlamaSampler temp_ext(float t, float delta, float exponent) {
    check_finite("t", t);
    check_finite("delta", delta);
    check_finite("exponent", exponent);
    return with_temperature(t, own_sampler(llama_sampler_init_temp_ext(t, delta, exponent)));
}

LlamaSampler xtc(float p, float t, size_t min_keep, uint32_t seed) {
    check_finite("p", p);
    check_finite("t", t);
    const bool excludes = p > 0.0f && t <= 0.5f;
    return own_sampler(excludes && min_keep <= 1 ? make_xtc_sampler(p, t, seed)
                                                 : llama_sampler_init_xtc(p, t, min_keep, seed));
}

LlamaSampler top_n_sigma(float n) {
    check_finite("n", n);
    LlamaSampler result = own_sampler(llama_sampler_init_top_n_sigma(n));
    if (n > 0.0f) {
        result.handle->effect.cut = {Cut::Kind::kTopNSigma, n};
    }
    return result;
}

LlamaSampler mirostat(int32_t n_vocab, uint32_t seed, float tau, float eta, int32_t m) {
    check_vocab_size(n_vocab);
    check_finite("tau", tau);
    check_finite("eta", eta);
    if (m < 2) {
        throw_value_error("m must be at least 2, not " + std::to_string(m));
    }
    LlamaSampler result = own_sampler(make_mirostat_sampler(n_vocab, seed, tau, eta, m));
    result.handle->n_vocab = n_vocab;
    return result;
}

LlamaSampler mirostat_v2(uint32_t seed, float tau, float eta) {
    check_finite("tau", tau);
    check_finite("eta", eta);
    return own_sampler(llama_sampler_init_mirostat_v2(seed, tau, eta));
}

LlamaSampler adaptive_p(float target, float decay, uint32_t seed) {
    check_finite("target", target);
    if (!(decay >= 0.0f && decay <= 0.99f)) {
        throw_value_error("decay must be from 0 to 0.99");
    }
    return own_sampler(llama_sampler_init_adaptive_p(target, decay, seed));
}

LlamaSampler penalties(int32_t n_vocab, int32_t last_n, float repeat, float frequency, float presence) {
    check_vocab_size(n_vocab);
    check_history("penalty_last_n", last_n);
    check_finite("penalty_repeat", repeat);
    check_finite("penalty_freq", frequency);
    check_finite("penalty_present", presence);
    if (repeat <= 0) {
        throw_value_error("penalty_repeat must be positive, not " + std::to_string(repeat));
    }
    LlamaSampler result = own_sampler(llama_sampler_init_penalties(n_vocab, last_n, repeat, frequency, presence));
    result.handle->n_vocab = n_vocab;
    if (repeat >= 1 && frequency >= 0 && presence >= 0) {
        result.handle->effect.known = true;
        result.handle->effect.n_lowered = std::max(last_n, 0);
    }
    return result;
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
    std::vector<const char *> pointers;
    for (const auto & breaker : breakers) {
        pointers.push_back(breaker.c_str());
    }
    return own(llama_sampler_init_dry(model.vocab(), multiplier, base, allowed_length, last_n, pointers.data(),
                                      pointers.size()),
               vocab, model.n_vocab());
}

LlamaSampler logit_bias(int32_t n_vocab, const std::vector<std::pair<llama_token, float>> & biases) {
    check_vocab_size(n_vocab);
    std::vector<llama_logit_bias> items;
    std::set<llama_token> tokens;
    for (const auto & [token, bias] : biases) {
        if (token < 0 || token >= n_vocab) {
            throw_value_error("token id " + std::to_string(token) + " is out of range: the vocabulary has ids 0 to " +
                              std::to_string(n_vocab - 1));
        }
        if (std::isnan(bias)) {
            throw_value_error("a bias must be a number, not NaN");
        }
        items.push_back({token, bias});
        tokens.insert(token);
    }
    LlamaSampler result =
        own_sampler(llama_sampler_init_logit_bias(n_vocab, static_cast<int32_t>(items.size()), items.data()));
    result.handle->n_vocab = n_vocab;
    SamplerEffect & effect = result.handle->effect;
    // llama.cpp adds up several biases of one token only if it sees the whole vocabulary.
    effect.known = effect.simple = tokens.size() == items.size();
    effect.biases = biases;
    for (const auto & [token, bias] : biases) {
        if (bias > 0) {
            effect.raised.push_back(token);
        } else {
            ++effect.n_lowered;
        }
    }
    return result;
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
    result.handle->effect.known = result.handle->effect.simple = true; // it changes no logits: it may force a token
    return result;
}

LlamaSampler infill(const LlamaVocab & vocab) {
    ModelUse model(vocab.handle);
    model.check_vocab();
    if (llama_vocab_eot(model.vocab()) < 0 && llama_vocab_eos(model.vocab()) < 0) {
        throw_value_error("infill needs a vocabulary with an end-of-turn or end-of-sequence token");
    }
    return own(llama_sampler_init_infill(model.vocab()), vocab, model.n_vocab());
}

LlamaSampler chain(const std::vector<LlamaSampler *> & samplers, bool no_perf) {
    SamplerHandles handles; // while this thread waits, another thread may change the list, and so free the samplers
    for (const LlamaSampler * sampler : samplers) {
        handles.push_back(sampler ? sampler->handle : throw nb::type_error("a sampler is None"));
    }
    llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf = no_perf;
    LlamaSampler result = own_sampler(llama_sampler_chain_init(params));
    add_to_chain(*result.handle, handles);
    return result;
}

// Long: a list of bindings.
void init_selecting(nb::class_<LlamaSampler> & c) {
    c.def_static(
         "greedy", [] { return keeping(1, own_sampler(llama_sampler_init_greedy())); },
         "Select the most likely token (llama_sampler_init_greedy).")
        .def_static(
            "dist", [](uint32_t seed) { return own_sampler(llama_sampler_init_dist(seed)); },
            nb::arg("seed") = LLAMA_DEFAULT_SEED, R"doc(
            Select a token at random, by its probability (llama_sampler_init_dist).

            Args:
                seed: Makes the choice reproducible; 0xFFFFFFFF draws a random one.
            )doc")
        .def_static("mirostat", &mirostat, nb::arg("n_vocab"), nb::arg("seed"), nb::arg("tau"), nb::arg("eta"),
                    nb::arg("m") = 100, R"doc(
            Mirostat 1.0: select with a target surprise (llama_sampler_init_mirostat, https://arxiv.org/abs/2007.14966).

            Args:
                n_vocab: Vocabulary size.
                seed: As for dist().
                tau: Target surprise, in bits.
                eta: Learning rate.
                m: Number of tokens that the estimate of the distribution uses, at least 2.

            Raises:
                ValueError: An argument is out of range.
            )doc")
        .def_static("mirostat_v2", &mirostat_v2, nb::arg("seed"), nb::arg("tau"), nb::arg("eta"), R"doc(
            Mirostat 2.0: select with a target surprise (llama_sampler_init_mirostat_v2, https://arxiv.org/abs/2007.14966).

            Args:
                seed: As for dist().
                tau: Target surprise, in bits.
                eta: Learning rate.

            Raises:
                ValueError: `tau` or `eta` is not finite.
            )doc")
        .def_static("adaptive_p", &adaptive_p, nb::arg("target"), nb::arg("decay") = 0.9f,
                    nb::arg("seed") = LLAMA_DEFAULT_SEED, R"doc(
            Select tokens near a target probability over time (llama_sampler_init_adaptive_p, llama.cpp #17927).

            Args:
                target: Target probability.
                decay: Weight of the past, from 0 to 0.99.
                seed: As for dist().

            Raises:
                ValueError: An argument is out of range.
            )doc");
}

// Long: a list of bindings.
void init_truncating(nb::class_<LlamaSampler> & c) {
    c.def_static("top_k", &top_k, nb::arg("k"), R"doc(
            Keep the k most likely tokens (llama_sampler_init_top_k, https://arxiv.org/abs/1904.09751).

            Args:
                k: Number of tokens; 0 or less keeps all.
            )doc")
        .def_static("top_p", &by_probability<llama_sampler_init_top_p, Cut::Kind::kTopP>, nb::arg("p"),
                    nb::arg("min_keep") = 0, R"doc(
            Keep the most likely tokens whose probabilities add up to p (llama_sampler_init_top_p,
            https://arxiv.org/abs/1904.09751).

            Args:
                p: Sum of probabilities.
                min_keep: Least number of tokens to keep.

            Raises:
                ValueError: `p` is not finite.
            )doc")
        .def_static("min_p", &by_probability<llama_sampler_init_min_p, Cut::Kind::kMinP>, nb::arg("p"),
                    nb::arg("min_keep") = 0, R"doc(
            Keep tokens at least p times as likely as the most likely one (llama_sampler_init_min_p, llama.cpp #3841).

            Args:
                p: Factor, from 0 to 1.
                min_keep: Least number of tokens to keep.

            Raises:
                ValueError: `p` is not finite.
            )doc")
        .def_static("typical", &by_probability<llama_sampler_init_typical, Cut::Kind::kTypical>, nb::arg("p"),
                    nb::arg("min_keep") = 0, R"doc(
            Locally typical sampling (llama_sampler_init_typical, https://arxiv.org/abs/2202.00666).

            Args:
                p: Sum of the probabilities of the tokens to keep.
                min_keep: Least number of tokens to keep.

            Raises:
                ValueError: `p` is not finite.
            )doc")
        .def_static("xtc", &xtc, nb::arg("p"), nb::arg("t"), nb::arg("min_keep") = 0, nb::arg("seed") = LLAMA_DEFAULT_SEED,
                    R"doc(
            With probability p, exclude all tokens above a threshold except the least likely one of them
            (llama_sampler_init_xtc, text-generation-webui #6335).

            Args:
                p: Probability that tokens are excluded, from 0 to 1.
                t: Threshold: a probability.
                min_keep: Least number of tokens to keep.
                seed: As for dist().

            Raises:
                ValueError: `p` or `t` is not finite.
            )doc")
        .def_static("top_n_sigma", &top_n_sigma, nb::arg("n"), R"doc(
            Keep tokens within n standard deviations of the largest logit (llama_sampler_init_top_n_sigma,
            https://arxiv.org/abs/2411.07641).

            Args:
                n: Number of standard deviations.

            Raises:
                ValueError: `n` is not finite.
            )doc")
        .def_static("infill", &infill, nb::arg("vocab"), R"doc(
            For fill-in-the-middle, after top_k and top_p (llama_sampler_init_infill).

            Args:
                vocab: The model's vocabulary.

            Raises:
                ValueError: The vocabulary has no token that ends a turn or a sequence.
            )doc");
}

// Long: a list of bindings.
void init_changing(nb::class_<LlamaSampler> & c) {
    c.def_static("temp", &temp, nb::arg("t"), R"doc(
            Divide the logits by a temperature (llama_sampler_init_temp).

            Args:
                t: Temperature; 0 or less keeps the largest logit only.

            Raises:
                ValueError: `t` is not finite.
            )doc")
        .def_static("temp_ext", &temp_ext, nb::arg("t"), nb::arg("delta"), nb::arg("exponent"), R"doc(
            Dynamic temperature, by entropy (llama_sampler_init_temp_ext, https://arxiv.org/abs/2309.02772).

            Args:
                t: Temperature in the middle of the range; 0 or less keeps the largest logit only.
                delta: The range is from t - delta to t + delta.
                exponent: Maps the normalized entropy to the range.

            Raises:
                ValueError: An argument is not finite.
            )doc")
        .def_static("penalties", &penalties, nb::arg("n_vocab"), nb::arg("penalty_last_n"),
                    nb::arg("penalty_repeat") = 1.0f, nb::arg("penalty_freq") = 0.0f, nb::arg("penalty_present") = 0.0f,
                    R"doc(
            Make recently accepted tokens less likely (llama_sampler_init_penalties).

            Args:
                n_vocab: Vocabulary size.
                penalty_last_n: Number of last tokens that count, from 0 to 2**24.
                penalty_repeat: Divides positive logits of these tokens and multiplies negative ones. Positive; 1 has no
                    effect.
                penalty_freq: Subtracted from a logit once for each occurrence of the token.
                penalty_present: Subtracted from a logit once if the token occurs.

            Raises:
                ValueError: An argument is out of range.
            )doc")
        .def_static("dry", &dry, nb::arg("vocab"), nb::arg("dry_multiplier"), nb::arg("dry_base") = 1.75f,
                    nb::arg("dry_allowed_length") = 2, nb::arg("dry_penalty_last_n") = 64,
                    nb::arg("seq_breakers") = std::vector<std::string>{"\n", ":", "\"", "*"}, R"doc(
            Make tokens less likely that would extend a repetition (llama_sampler_init_dry, text-generation-webui #5677).

            Args:
                vocab: The model's vocabulary.
                dry_multiplier: Size of the penalty; 0: no effect.
                dry_base: Base of its growth with the length of the repetition.
                dry_allowed_length: Longest repetition without a penalty, in tokens.
                dry_penalty_last_n: Number of last tokens that are searched, from 0 to 2**24.
                seq_breakers: Texts that a repetition does not go beyond.

            Raises:
                ValueError: An argument is out of range.
            )doc")
        .def_static("logit_bias", &logit_bias, nb::arg("n_vocab"), nb::arg("logit_bias"), R"doc(
            Add biases to logits (llama_sampler_init_logit_bias).

            Args:
                n_vocab: Vocabulary size.
                logit_bias: Pairs of a token id and its bias.

            Raises:
                ValueError: A token id is out of range, or a bias is NaN.
            )doc");
}

// Long: a list of bindings.
void init_constraining(nb::class_<LlamaSampler> & c) {
    c.def_static("grammar", &grammar, nb::arg("vocab"), nb::arg("grammar"), nb::arg("root") = "root", R"doc(
            Keep tokens that continue a text of a grammar.

            It follows the grammar with a machine of cyllama's own, which bounds the work for each token.

            Args:
                vocab: The model's vocabulary.
                grammar: GBNF.
                root: Name of the rule that the text has to fit.

            Raises:
                ValueError: The grammar is not valid GBNF, or its beginning takes too much work.
            )doc")
        .def_static("grammar_lazy", &grammar_lazy, nb::arg("vocab"), nb::arg("grammar"), nb::arg("root"),
                    nb::arg("trigger_patterns"), nb::arg("trigger_tokens"), R"doc(
            A grammar that begins at a trigger, and allows every token before (llama.cpp #9639).

            Args:
                vocab: The model's vocabulary.
                grammar: GBNF.
                root: Name of the rule that the text has to fit.
                trigger_patterns: Regular expressions (ECMAScript). The grammar's text begins with the first capture group
                    of a match, or with the match.
                trigger_tokens: Token ids. The grammar's text begins with such a token.

            Raises:
                ValueError: The grammar or a pattern is not valid, or a token id is out of range.
            )doc")
        .def_static("reasoning_budget", &reasoning_budget, nb::arg("vocab"), nb::arg("start"), nb::arg("ends"),
                    nb::arg("forced"), nb::arg("budget"), nb::arg("inside") = false, nb::arg("anywhere") = false, R"doc(
            Limit the tokens of reasoning. In a chain with a grammar, a token is forced only if the grammar allows it.

            Args:
                vocab: The model's vocabulary.
                start: Text that reasoning begins with.
                ends: Texts that reasoning can end with.
                forced: Token ids that follow when the budget is used up.
                budget: Most tokens of reasoning, 0 or more.
                inside: The prompt ends within reasoning.
                anywhere: Reasoning may begin behind other text, too, and again.

            Raises:
                ValueError: A text or `forced` is empty, `budget` is negative, or a token id is out of range.
            )doc")
        .def_static("chain", &chain, nb::arg("samplers") = std::vector<LlamaSampler *>(), nb::arg("no_perf") = true, R"doc(
            Samplers that are applied one after the other (llama_sampler_chain_init).

            Args:
                samplers: The samplers. The chain takes them over: they cannot be used alone any more.
                no_perf: Do not measure how long sampling takes.

            Raises:
                TypeError: A sampler is a chain.
                ValueError: A sampler occurs twice, or samplers were made for vocabularies of different sizes.
                RuntimeError: A sampler belongs to a chain.
            )doc");
}

} // namespace

void init_samplers(nb::class_<LlamaSampler> & sampler) {
    init_selecting(sampler);
    init_truncating(sampler);
    init_changing(sampler);
    init_constraining(sampler);
}
