#include "xtc_sampler.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "sampler_state.hpp"
#include "truncation.hpp"

namespace {

struct Xtc {
    float p, threshold;
    uint32_t seed;
    std::mt19937 random;
    Truncation truncation;

    Xtc(float p, float threshold, uint32_t seed) : p(p), threshold(threshold), seed(seed) { restart(); }
    void restart() { random.seed(seed == LLAMA_DEFAULT_SEED ? std::random_device{}() : seed); }
    void apply(llama_token_data_array & candidates);
};

void Xtc::apply(llama_token_data_array & candidates) {
    if (candidates.size < 2 || std::uniform_real_distribution<float>(0.0f, 1.0f)(random) > p) {
        return;
    }
    const float least = truncation.least_logit(threshold, candidates); // no logit reaches NaN
    llama_token_data * end = candidates.data + candidates.size;
    const llama_token_data * spared = nullptr;
    for (const auto * token = candidates.data; token != end; ++token) {
        if (token->logit >= least && (!spared || token->logit <= spared->logit)) {
            spared = token;
        }
    }
    if (!spared) {
        return;
    }
    const llama_token id = spared->id;
    const auto is_excluded = [&](const llama_token_data & token) { return token.logit >= least && token.id != id; };
    candidates.size = static_cast<size_t>(std::remove_if(candidates.data, end, is_excluded) - candidates.data);
    candidates.selected = -1;
}

llama_sampler * wrap(Xtc && xtc);

Xtc & xtc_of(const llama_sampler * sampler) { return *static_cast<Xtc *>(sampler->ctx); }

llama_sampler * wrap(Xtc && xtc) {
    static llama_sampler_i interface = [] {
        llama_sampler_i i{};
        i.name = [](const llama_sampler *) { return "xtc"; };
        i.apply = [](llama_sampler * sampler, llama_token_data_array * candidates) { xtc_of(sampler).apply(*candidates); };
        i.reset = [](llama_sampler * sampler) { xtc_of(sampler).restart(); };
        i.clone = [](const llama_sampler * sampler) { return wrap(Xtc(xtc_of(sampler))); };
        i.free = [](llama_sampler * sampler) { delete &xtc_of(sampler); };
        return i;
    }();
    return make_sampler(interface, std::move(xtc));
}

} // namespace

llama_sampler * make_xtc_sampler(float p, float threshold, uint32_t seed) { return wrap(Xtc(p, threshold, seed)); }
