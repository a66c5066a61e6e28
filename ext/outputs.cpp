// The outputs of a context's last batch: logits and embeddings.
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "context.hpp"
#include "errors.hpp"
#include "modules.hpp"

namespace {

using FloatView = nb::ndarray<nb::memview, float, nb::ndim<1>, nb::c_contig>;

// A copy: llama.cpp's own buffer changes with the next decode.
FloatView copy_floats(const float * source, size_t n) {
    if (!source) {
        throw std::runtime_error("the context has no such output: see LlamaContextParams.embeddings and pooling_type");
    }
    auto * data = new float[n];
    std::copy(source, source + n, data);
    nb::capsule owner(data, [](void * p) noexcept { delete[] static_cast<float *>(p); });
    return FloatView(data, {n}, owner);
}

// The index in the last batch of a token that has logits.
int32_t check_logits(const ContextUse & use, int32_t index) {
    const int32_t i = use.check_output(index);
    if (use->outputs[i] != ContextHandle::kLogits) {
        throw std::runtime_error(
            "the token was sampled in the graph (LlamaContextParams.samplers): its logits stayed there");
    }
    return i;
}

FloatView get_logits_ith(const LlamaContext & self, int32_t index) {
    ContextUse use(self);
    const int32_t i = check_logits(use, index);
    return copy_floats(llama_get_logits_ith(use.get(), i), static_cast<size_t>(use->n_vocab));
}

// Logits of a vocabulary. NaN counts as an impossible token: it could not be compared.
class Logits {
  public:
    Logits(const float * logits, int32_t n_vocab) : logits_(logits), n_vocab_(n_vocab) {}

    double operator[](llama_token id) const {
        return std::isnan(logits_[id]) ? -std::numeric_limits<double>::infinity() : static_cast<double>(logits_[id]);
    }

    // The logarithm of the sum of all exponentials.
    double log_sum() const {
        double largest = (*this)[0], sum = 0;
        for (llama_token id = 1; id < n_vocab_; ++id) {
            largest = std::max(largest, (*this)[id]);
        }
        for (llama_token id = 0; id < n_vocab_; ++id) {
            sum += std::exp((*this)[id] - largest);
        }
        return largest + std::log(sum);
    }

    // The `n` tokens with the largest logits, in this order.
    std::vector<llama_token> largest(int32_t n) const {
        std::vector<llama_token> ids(static_cast<size_t>(n_vocab_));
        std::iota(ids.begin(), ids.end(), 0);
        const auto likelier = [&](llama_token a, llama_token b) {
            return (*this)[a] != (*this)[b] ? (*this)[a] > (*this)[b] : a < b;
        };
        std::partial_sort(ids.begin(), ids.begin() + n, ids.end(), likelier);
        ids.resize(static_cast<size_t>(n));
        return ids;
    }

  private:
    const float * logits_;
    const int32_t n_vocab_;
};

using Logprobs = std::pair<double, std::vector<std::pair<llama_token, double>>>; // of the token, and of the likeliest ones

Logprobs get_logprobs_ith(const LlamaContext & self, int32_t index, llama_token token, int32_t n_top) {
    ContextUse use(self);
    const int32_t i = check_logits(use, index);
    check_range("token", token, 0, static_cast<int64_t>(use->n_vocab) - 1);
    check_range("n_top", n_top, 0, use->n_vocab);
    WithoutGil release;
    const float * data = llama_get_logits_ith(use.get(), i);
    if (!data) {
        throw std::runtime_error("the context has no logits");
    }
    const Logits logits(data, use->n_vocab);
    const double log_sum = logits.log_sum();
    Logprobs result{logits[token] - log_sum, {}};
    if (n_top > 0) {
        for (const llama_token id : logits.largest(n_top)) {
            result.second.emplace_back(id, logits[id] - log_sum);
        }
    }
    return result;
}

size_t n_embd_out(const ContextUse & use) {
    return static_cast<size_t>(llama_model_n_embd_out(llama_get_model(use.get())));
}

FloatView get_embeddings_ith(const LlamaContext & self, int32_t index) {
    ContextUse use(self);
    const int32_t i = use.check_output(index);
    if (!use->embeddings || llama_pooling_type(use.get()) != LLAMA_POOLING_TYPE_NONE) {
        return copy_floats(nullptr, 0);
    }
    return copy_floats(llama_get_embeddings_ith(use.get(), i), n_embd_out(use));
}

FloatView get_embeddings_seq(const LlamaContext & self, llama_seq_id seq_id) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    const bool rank = llama_pooling_type(use.get()) == LLAMA_POOLING_TYPE_RANK;
    const size_t n = rank ? llama_model_n_cls_out(llama_get_model(use.get())) : n_embd_out(use);
    return copy_floats(llama_get_embeddings_seq(use.get(), seq_id), n);
}

} // namespace

// Long: a list of bindings.
void init_outputs(nb::class_<LlamaContext> & context) {
    context
        .def("get_logits_ith", &get_logits_ith, nb::arg("i") = -1,
             nb::sig("def get_logits_ith(self, i: int = -1) -> memoryview"), R"doc(
            Return the logits of a token of the last batch (llama_get_logits_ith).

            Args:
                i: Index of the token in the batch; -1 is the last token with an output, -2 the one before.

            Returns:
                A copy: float32 of shape (n_vocab,).

            Raises:
                IndexError: The token has no output.
                RuntimeError: The token was sampled in the graph.
            )doc")
        .def("get_logprobs_ith", &get_logprobs_ith, nb::arg("i"), nb::arg("token"), nb::arg("n_top") = 0, R"doc(
            Return natural logarithms of probabilities, by the model's own logits, before any sampler.

            One pass over the vocabulary, without the GIL.

            Args:
                i: Index of a token, as for get_logits_ith().
                token: Token id whose probability to follow token `i` is wanted.
                n_top: Number of likeliest tokens to return, from 0 to n_vocab.

            Returns:
                The logarithm for `token`, and pairs of a token id and its logarithm for the `n_top` likeliest tokens,
                most likely first.

            Raises:
                IndexError: Token `i` has no output.
                ValueError: `token` or `n_top` is out of range.
                RuntimeError: Token `i` was sampled in the graph.
            )doc")
        .def("get_embeddings_ith", &get_embeddings_ith, nb::arg("i") = -1,
             nb::sig("def get_embeddings_ith(self, i: int = -1) -> memoryview"), R"doc(
            Return the embedding of one token, without pooling (llama_get_embeddings_ith).

            Args:
                i: Index of the token, as for get_logits_ith().

            Returns:
                A copy: float32 of shape (n_embd_out,).

            Raises:
                IndexError: The token has no output.
                RuntimeError: The context computes no embeddings, or pools them.
            )doc")
        .def("get_embeddings_seq", &get_embeddings_seq, nb::arg("seq_id") = 0,
             nb::sig("def get_embeddings_seq(self, seq_id: int = 0) -> memoryview"), R"doc(
            Return the pooled embedding of a sequence of the last batch (llama_get_embeddings_seq).

            Args:
                seq_id: The sequence.

            Returns:
                A copy: float32 of shape (n_embd_out,). With pooling type RANK, its scores: float32 of shape (n_cls_out,).

            Raises:
                ValueError: The context has no such sequence.
                RuntimeError: The context computes no embeddings, or does not pool them.
            )doc");
}
