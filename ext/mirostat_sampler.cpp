#include "mirostat_sampler.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "sampler_state.hpp"

namespace {

struct Mirostat {
    int32_t n_vocab;
    uint32_t seed, seed_in_use = 0;
    float tau, eta;
    int32_t m; // candidates to estimate the exponent from
    float mu = 0.0f;
    std::mt19937 random;

    Mirostat(int32_t n_vocab, uint32_t seed, float tau, float eta, int32_t m)
        : n_vocab(n_vocab), seed(seed), tau(tau), eta(eta), m(m) {
        restart();
    }
    void restart() {
        mu = 2.0f * tau;
        seed_in_use = seed == LLAMA_DEFAULT_SEED ? std::random_device{}() : seed;
        random.seed(seed_in_use);
    }
    size_t n_kept(const llama_token_data_array & candidates, float n) const;
    void apply(llama_token_data_array & candidates);
};

// Writes the probabilities of sorted candidates, and leaves out those that have none.
void weigh(llama_token_data_array & candidates) {
    float sum = 0.0f;
    for (size_t i = 0; i < candidates.size; ++i) {
        candidates.data[i].p = std::exp(candidates.data[i].logit - candidates.data[0].logit);
        sum += candidates.data[i].p;
    }
    size_t n = 0;
    for (; n < candidates.size && candidates.data[n].p > 0.0f; ++n) {
        candidates.data[n].p /= sum;
    }
    candidates.size = n;
}

// How many of the most likely candidates may be selected: the first k by Zipf's law for `n` tokens, whose exponent is
// estimated.
size_t Mirostat::n_kept(const llama_token_data_array & candidates, float n) const {
    float products = 0.0f, squares = 0.0f;
    for (size_t i = 0; i + 1 < static_cast<size_t>(m) && i + 1 < candidates.size; ++i) {
        const float t = std::log(static_cast<float>(i + 2) / static_cast<float>(i + 1));
        products += t * std::log(candidates.data[i].p / candidates.data[i + 1].p);
        squares += t * t;
    }
    const float exponent = products / squares, epsilon = exponent - 1;
    const float k = std::pow((epsilon * std::pow(2.0f, mu)) / (1 - std::pow(n, -epsilon)), 1 / exponent);
    if (k >= static_cast<float>(candidates.size)) {
        return candidates.size;
    }
    return k > 1.0f ? static_cast<size_t>(k) : 1; // it is NaN for one candidate
}

void Mirostat::apply(llama_token_data_array & candidates) {
    llama_token_data * const begin = candidates.data;
    llama_token_data * const end = begin + candidates.size;
    llama_token_data * const possible =
        std::remove_if(begin, end, [](const llama_token_data & token) { return token.logit == -INFINITY; });
    candidates.selected = 0;
    if (possible == begin) {
        return;
    }
    const float n = static_cast<float>(n_vocab) - static_cast<float>(end - possible);
    candidates.size = static_cast<size_t>(possible - begin);
    std::sort(begin, possible, [](const llama_token_data & a, const llama_token_data & b) { return a.logit > b.logit; });
    candidates.sorted = true;
    weigh(candidates);
    candidates.size = n_kept(candidates, n);
    weigh(candidates);
    std::vector<float> weights(candidates.size);
    std::transform(begin, begin + candidates.size, weights.begin(), [](const llama_token_data & token) { return token.p; });
    candidates.selected = std::discrete_distribution<int>(weights.begin(), weights.end())(random);
    mu -= eta * (-std::log2(begin[candidates.selected].p) - tau);
}

Mirostat & mirostat_of(const llama_sampler * sampler) { return *static_cast<Mirostat *>(sampler->ctx); }

llama_sampler * wrap(Mirostat && mirostat);

llama_sampler_i make_mirostat_interface() {
    llama_sampler_i i{};
    i.name = [](const llama_sampler *) { return "mirostat"; };
    i.apply = [](llama_sampler * sampler, llama_token_data_array * candidates) { mirostat_of(sampler).apply(*candidates); };
    i.reset = [](llama_sampler * sampler) { mirostat_of(sampler).restart(); };
    i.clone = [](const llama_sampler * sampler) { return wrap(Mirostat(mirostat_of(sampler))); };
    i.free = [](llama_sampler * sampler) { delete &mirostat_of(sampler); };
    return i;
}

llama_sampler_i & mirostat_interface() {
    static llama_sampler_i instance = make_mirostat_interface();
    return instance;
}

llama_sampler * wrap(Mirostat && mirostat) { return make_sampler(mirostat_interface(), std::move(mirostat)); }

} // namespace

llama_sampler * make_mirostat_sampler(int32_t n_vocab, uint32_t seed, float tau, float eta, int32_t m) {
    return wrap(Mirostat(n_vocab, seed, tau, eta, m));
}

uint32_t mirostat_seed(const llama_sampler * sampler) {
    return sampler->iface == &mirostat_interface() ? mirostat_of(sampler).seed_in_use : LLAMA_DEFAULT_SEED;
}
