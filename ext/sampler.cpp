#include "sampler.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <set>
#include <stdexcept>
#include <utility>

#include "errors.hpp"
#include "grammar_sampler.hpp"
#include "guard.hpp"
#include "mirostat_sampler.hpp"
#include "modules.hpp"

SamplerHandle::~SamplerHandle() {
    if (sampler) {
        llama_sampler_free(sampler);
    }
}

void SamplerHandle::check_usable() const {
    if (!sampler) {
        throw std::runtime_error("the sampler belongs to a chain now: use the chain");
    }
}

void SamplerHandle::check_vocab(int32_t other_n_vocab) const {
    if (n_vocab && n_vocab != other_n_vocab) {
        throw_value_error("the sampler was made for a vocabulary of " + std::to_string(n_vocab) + " tokens, not of " +
                          std::to_string(other_n_vocab));
    }
}

std::vector<std::unique_ptr<ModelUse>> SamplerHandle::use_models() const {
    std::vector<std::unique_ptr<ModelUse>> uses;
    for (const auto & model : models) {
        uses.push_back(std::make_unique<ModelUse>(model));
    }
    return uses;
}

LlamaSampler own_sampler(llama_sampler * sampler) {
    if (!sampler) {
        throw std::runtime_error("llama.cpp could not create the sampler");
    }
    return {std::make_shared<SamplerHandle>(sampler)};
}

namespace {

// Throws unless all of the samplers can be added to a chain. Returns the vocabulary size of the chain afterwards.
int32_t check_additions(const SamplerHandle & chain, const SamplerHandles & samplers) {
    chain.check_usable();
    if (!chain.is_chain()) {
        throw_type_error("only a chain can be added to: LlamaSampler.chain()");
    }
    if (chain.in_graph) {
        throw std::runtime_error("the chain belongs to a context and cannot change any more");
    }
    int32_t n_vocab = chain.n_vocab;
    for (const auto & sampler : samplers) {
        sampler->check_usable();
        if (sampler->is_chain()) {
            throw_type_error("a chain cannot be added to a chain: add its samplers");
        }
        if (n_vocab && sampler->n_vocab) {
            sampler->check_vocab(n_vocab);
        }
        n_vocab = std::max(n_vocab, sampler->n_vocab);
    }
    return n_vocab;
}

void add_one(SamplerHandle & chain, SamplerHandle & sampler) {
    const bool leads = llama_sampler_chain_n(chain.sampler) == 0;
    chain.needed.add(sampler.effect, leads && is_grammar_sampler(sampler.sampler));
    llama_sampler_chain_add(chain.sampler, std::exchange(sampler.sampler, nullptr));
    std::move(sampler.models.begin(), sampler.models.end(), std::back_inserter(chain.models));
    sampler.models.clear();
    if (sampler.top_k) {
        chain.n_candidates =
            chain.top_k && sampler.top_k > chain.top_k ? INT32_MAX : std::max(chain.n_candidates, sampler.top_k);
        chain.top_k = chain.top_k ? std::min(chain.top_k, sampler.top_k) : sampler.top_k;
    }
}

} // namespace

void add_to_chain(SamplerHandle & chain, const SamplerHandles & samplers) {
    std::set<SamplerHandle *> all{&chain};
    for (const auto & sampler : samplers) {
        if (!all.insert(sampler.get()).second) {
            throw_value_error("a chain cannot contain itself, nor a sampler twice: use clone()");
        }
    }
    std::vector<std::unique_ptr<Guard>> guards;
    for (SamplerHandle * handle : all) {
        guards.push_back(std::make_unique<Guard>(*handle, "sampler", !guards.empty()));
    }
    chain.n_vocab = check_additions(chain, samplers);
    for (const auto & sampler : samplers) {
        add_one(chain, *sampler);
    }
}

namespace {

std::vector<std::string> names(const LlamaSampler & self) {
    Guard guard(*self.handle, "sampler");
    self.handle->check_usable();
    std::vector<std::string> result;
    self.handle->for_each([&](llama_sampler * sampler) { result.emplace_back(llama_sampler_name(sampler)); });
    return result;
}

void accept_tokens(LlamaSampler & self, const std::vector<llama_token> & tokens) {
    Guard guard(*self.handle, "sampler");
    self.handle->check_usable();
    const auto uses = self.handle->use_models();
    for (llama_token token : tokens) {
        if (token < 0 || token == INT32_MAX || (self.handle->n_vocab && token >= self.handle->n_vocab)) {
            throw_value_error("token id " + std::to_string(token) + " is out of range");
        }
    }
    WithoutGil release;
    for (llama_token token : tokens) {
        llama_sampler_accept(self.handle->sampler, token);
    }
}

void reset_sampler(LlamaSampler & self) {
    Guard guard(*self.handle, "sampler");
    self.handle->check_usable();
    const auto uses = self.handle->use_models();
    llama_sampler_reset(self.handle->sampler);
}

LlamaSampler clone_sampler(const LlamaSampler & self) {
    Guard guard(*self.handle, "sampler");
    self.handle->check_usable();
    const auto uses = self.handle->use_models();
    self.handle->for_each([](llama_sampler * sampler) {
        // With a selection that was never accepted, the copy, which lacks its data, would read out of bounds. To accept an
        // id that no token has makes adaptive_p forget the selection.
        if (std::strcmp(llama_sampler_name(sampler), "adaptive-p") == 0) {
            llama_sampler_accept(sampler, INT32_MAX);
        }
    });
    LlamaSampler result = own_sampler(llama_sampler_clone(self.handle->sampler));
    result.handle->effect = self.handle->effect;
    result.handle->needed = self.handle->needed;
    result.handle->models = self.handle->models;
    result.handle->n_vocab = self.handle->n_vocab;
    result.handle->top_k = self.handle->top_k;
    result.handle->n_candidates = self.handle->n_candidates;
    return result;
}

uint32_t seed_of(const LlamaSampler & self) {
    Guard guard(*self.handle, "sampler");
    self.handle->check_usable();
    uint32_t seed = llama_sampler_get_seed(self.handle->sampler); // it knows llama.cpp's samplers only
    self.handle->for_each([&](llama_sampler * sampler) {
        const uint32_t own = mirostat_seed(sampler);
        seed = own == LLAMA_DEFAULT_SEED ? seed : own;
    });
    return seed;
}

std::string sampler_repr(const LlamaSampler & self) {
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
}

void init_methods(nb::class_<LlamaSampler> & sampler) {
    sampler
        .def("accept", &accept_tokens, nb::arg("tokens"), R"doc(
            Tell the sampler about tokens that it did not sample, such as a prompt (llama_sampler_accept).

            Args:
                tokens: Token ids.

            Raises:
                ValueError: A token id is out of range.
                RuntimeError: A grammar does not allow a token, or the sampler belongs to a chain.
            )doc")
        .def(
            "add", [](LlamaSampler & self, LlamaSampler & sampler) { add_to_chain(*self.handle, {sampler.handle}); },
            nb::arg("sampler"), R"doc(
            Append a sampler to this chain, which takes it over (llama_sampler_chain_add).

            Args:
                sampler: The sampler, which cannot be used alone any more.

            Raises:
                TypeError: This is not a chain, or `sampler` is one.
                ValueError: `sampler` was made for a vocabulary of another size, or is this chain.
                RuntimeError: A context runs this chain, or `sampler` belongs to a chain.
            )doc")
        .def("reset", &reset_sampler, "Forget the accepted tokens (llama_sampler_reset).")
        .def("clone", &clone_sampler, "Return an independent copy in the same state (llama_sampler_clone).")
        .def_prop_ro("seed", &seed_of, "The seed in use; 0xFFFFFFFF if there is none (llama_sampler_get_seed).")
        .def_prop_ro("names", &names, "llama.cpp's names of the samplers that it consists of.")
        .def("__len__", [](const LlamaSampler & self) { return names(self).size(); })
        .def("__repr__", &sampler_repr);
}

} // namespace

nb::class_<LlamaSampler> init_sampler(nb::module_ & m) {
    nb::class_<LlamaSampler> sampler(m, "LlamaSampler", R"doc(
        Chooses the next token (llama_sampler).

        A sampler is one method, or a chain of them whose last one selects a token: greedy, dist, mirostat, mirostat_v2 or
        adaptive_p.

        >>> sampler = LlamaSampler.chain([
        ...     LlamaSampler.top_k(40), LlamaSampler.temp(0.8), LlamaSampler.dist(seed=1)
        ... ])
        >>> token = sampler.sample(context)
        )doc");
    init_methods(sampler);
    return sampler;
}
