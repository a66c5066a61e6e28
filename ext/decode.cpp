// Evaluating batches in a context.
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>

#include "batch.hpp"
#include "context.hpp"
#include "conversion.hpp"
#include "errors.hpp"
#include "grammar_limit.hpp"
#include "modules.hpp"
#include "sampler.hpp"
#include "sampling.hpp"

namespace {

// Refuses batches that llama.cpp would answer with an abort of the process.
class BatchCheck {
  public:
    BatchCheck(const ContextUse & use, const LlamaBatch & source, const llama_batch & batch, bool encode)
        : use_(use), source_(source), batch_(batch), encode_(encode), has_memory_(llama_get_memory(use.get()) != nullptr),
          // with a cache for each sequence: llama.cpp would report a full cache for a token of several sequences
          streams_(!use->kv_unified && use->n_seq_max > 1 && !llama_model_is_recurrent(llama_get_model(use.get()))) {}

    // Returns what `ContextHandle::outputs` will be.
    std::vector<int16_t> outputs() const {
        check_size();
        if (batch_.embd) {
            check_embeddings();
        }
        const bool output_all = use_->embeddings || encode_ || !has_memory_;
        int32_t n_outputs = 0;
        std::vector<int16_t> outputs(static_cast<size_t>(batch_.n_tokens), ContextHandle::kNoOutput);
        for (int32_t i = 0; i < batch_.n_tokens; ++i) {
            check_token(i);
            if (batch_.logits[i] || output_all) {
                ++n_outputs;
                outputs[i] = output_of(i);
            }
        }
        if (n_outputs > use_->n_outputs_max) {
            throw_value_error(
                "the batch asks for the outputs of " + std::to_string(n_outputs) +
                " tokens, but the context has space for n_outputs_max=" + std::to_string(use_->n_outputs_max));
        }
        return outputs;
    }

  private:
    void check_size() const {
        if (batch_.n_tokens == 0) {
            throw_value_error("the batch is empty");
        }
        if (!encode_ && use_->has_encoder && llama_model_has_decoder(llama_get_model(use_.get())) && !use_->encoded) {
            throw_value_error("an encoder-decoder model needs encode() before decode()");
        }
        const auto n_batch = static_cast<int32_t>(llama_n_batch(use_.get()));
        const auto n_ubatch = static_cast<int32_t>(llama_n_ubatch(use_.get()));
        const bool whole =
            encode_ || !use_->causal || !has_memory_ || source_.whole(); // llama.cpp evaluates the batch in one pass
        if (batch_.n_tokens > (whole ? std::min(n_batch, n_ubatch) : n_batch)) {
            throw_value_error("the batch has " + std::to_string(batch_.n_tokens) + " tokens, more than " +
                              (whole ? "n_ubatch=" + std::to_string(n_ubatch) : "n_batch=" + std::to_string(n_batch)) +
                              ": split it, or create the context with a larger one");
        }
    }

    void check_embeddings() const {
        const llama_model * model = llama_get_model(use_.get());
        const int32_t n_embd = llama_model_n_embd_inp(model);
        if (source_.n_embd() != n_embd) {
            throw_value_error("the embeddings have " + std::to_string(source_.n_embd()) +
                              " numbers, and those of the model " + std::to_string(n_embd));
        }
        const enum llama_rope_type rope = llama_model_rope_type(model);
        if (encode_ || use_->has_encoder || !has_memory_ || rope == LLAMA_ROPE_TYPE_MROPE ||
            rope == LLAMA_ROPE_TYPE_IMROPE) {
            throw_value_error("this model takes no embeddings of images here");
        }
    }

    void check_token(int32_t i) const {
        if (batch_.token && (batch_.token[i] < 0 || batch_.token[i] >= use_->n_vocab)) {
            throw_value_error("token id " + std::to_string(batch_.token[i]) +
                              " is out of range: the vocabulary has ids 0 to " + std::to_string(use_->n_vocab - 1));
        }
        if (use_->n_positions && batch_.pos[i] >= use_->n_positions) {
            throw_value_error("position " + std::to_string(batch_.pos[i]) +
                              " is out of range: the model has learned embeddings of " + std::to_string(use_->n_positions) +
                              " positions, and no sequence can be longer");
        }
        for (int32_t s = 0; s < batch_.n_seq_id[i]; ++s) {
            use_.check_sequence(batch_.seq_id[i][s]);
        }
        if (batch_.n_seq_id[i] > 1 && streams_) {
            throw_value_error("a token can belong to several sequences only in a context with kv_unified=True");
        }
    }

    int16_t output_of(int32_t i) const {
        for (int32_t s = 0; s < batch_.n_seq_id[i] && !use_->samplers.empty() && !encode_; ++s) {
            if (!use_->samplers.count(batch_.seq_id[i][s])) {
                continue;
            }
            if (batch_.n_seq_id[i] > 1) {
                throw_value_error("a token with an output belongs to several sequences, and one of them is sampled in "
                                  "the graph (LlamaContextParams.samplers)");
            }
            return static_cast<int16_t>(batch_.seq_id[i][s]);
        }
        return ContextHandle::kLogits;
    }

    const ContextUse & use_;
    const LlamaBatch & source_;
    const llama_batch & batch_;
    const bool encode_, has_memory_, streams_;
};

// Locks the samplers that run in the graph, for the length of a scope. Without the GIL.
class GraphSamplersLock {
  public:
    explicit GraphSamplersLock(const GraphSamplers & samplers) : samplers_(by_address(samplers)) {
        for (SamplerHandle * sampler : samplers_) {
            sampler->lock("sampler");
        }
    }
    ~GraphSamplersLock() {
        for (SamplerHandle * sampler : samplers_) {
            sampler->unlock();
        }
    }
    GraphSamplersLock(const GraphSamplersLock &) = delete;
    GraphSamplersLock & operator=(const GraphSamplersLock &) = delete;

  private:
    const std::set<SamplerHandle *> samplers_;
};

// For the length of a scope, the tokens of a batch attend to each other in both directions, if `whole`.
class WholeWhile {
  public:
    WholeWhile(const ContextUse & use, bool whole) : context_(whole && use->causal ? use.get() : nullptr) {
        if (context_) {
            llama_set_causal_attn(context_, false);
        }
    }
    ~WholeWhile() {
        if (context_) {
            llama_set_causal_attn(context_, true);
        }
    }
    WholeWhile(const WholeWhile &) = delete;
    WholeWhile & operator=(const WholeWhile &) = delete;

  private:
    llama_context * const context_;
};

// Runs llama_decode or llama_encode, without the GIL; returns its status.
int compute(const ContextUse & use, const llama_batch & batch, bool encode, bool whole) {
    AdaptersUse adapters(use->model->adapters);
    GraphSamplersLock lock(use->samplers);
    QuietWhile quiet(use->abort);
    WholeWhile attention(use, whole);
    try {
        return encode ? llama_encode(use.get(), batch) : llama_decode(use.get(), batch);
    } catch (const std::exception & error) {
        use->failed_check = error.what();
        throw;
    }
}

std::string sequence_positions(const ContextUse & use) {
    constexpr llama_seq_id kMost = 8;
    std::string text;
    for (llama_seq_id s = 0; s < use->n_seq_max && s < kMost; ++s) {
        text += (s ? ", " : "") + std::to_string(s) + ": " +
                std::to_string(llama_memory_seq_pos_max(llama_get_memory(use.get()), s));
    }
    return text;
}

// Throws what a callback has thrown, and for a status that is an error.
void throw_failure(const ContextUse & use, int status) {
    if (use->callback_error) {
        nb::python_error error = std::move(*use->callback_error);
        use->callback_error.reset();
        throw error;
    }
    if (status == -1) {
        throw_value_error("llama.cpp refuses the batch: " + logged_errors("invalid input") +
                          ". Last position by sequence: {" + sequence_positions(use) + "}");
    }
    if (status < 0) {
        throw std::runtime_error("decoding failed with status " + std::to_string(status) + ": " +
                                 logged_errors("out of memory or a failure of the backend"));
    }
}

// Evaluates a batch with the lock held and without the GIL; `then` follows on success, without taking the GIL in between.
template <class Then>
int run_batch(const ContextUse & use, LlamaBatch & source, bool encode, Then && then) {
    const llama_batch batch = source.get();
    std::vector<int16_t> outputs = BatchCheck(use, source, batch, encode).outputs();
    use->outputs.clear();
    clear_logged_errors();
    int status = 0;
    {
        WithoutGil release;
        status = compute(use, batch, encode, source.whole());
        if (status == 0) {
            use->threadpools.were_used();
        }
        if (status == 0 && !use->callback_error) {
            use->outputs = std::move(outputs);
            use->encoded = use->encoded || encode;
            then();
        }
    }
    throw_failure(use, status);
    return status;
}

int decode(const LlamaContext & self, LlamaBatch & batch) {
    ContextUse use(self);
    Guard guard(batch, "batch", true);
    return run_batch(use, batch, false, [] {});
}

void encode(const LlamaContext & self, LlamaBatch & batch) {
    ContextUse use(self);
    Guard guard(batch, "batch", true);
    if (!use->has_encoder) {
        throw_value_error("the model has no encoder: use decode()");
    }
    if (run_batch(use, batch, true, [] {}) != 0) {
        throw std::runtime_error("encoding was aborted");
    }
}

// Why samplers failed, by index in the list of samplers.
struct SamplingError {
    bool too_much_work; // of a grammar
    std::string reason;
};
using SamplingErrors = std::map<size_t, SamplingError>;

std::map<size_t, nb::object> to_exceptions(const SamplingErrors & errors) {
    std::map<size_t, nb::object> exceptions;
    for (const auto & [i, error] : errors) {
        exceptions[i] = nb::handle(error.too_much_work ? PyExc_ValueError : PyExc_RuntimeError)(to_str(error.reason));
    }
    return exceptions;
}

// A sampler, the token of the batch after which it samples, and how many tokens after that one are drafts of what it will
// sample.
struct Sampling {
    int32_t index;
    std::shared_ptr<SamplerHandle> sampler;
    int32_t n_drafted;
};

// Samples a token, and another one after each that was drafted, into `tokens`.
void sample_drafted(const ContextUse & use, const llama_batch & batch, const Sampling & of,
                    std::vector<llama_token> & tokens) {
    const int32_t last = of.index + of.n_drafted;
    for (int32_t i = of.index;; ++i) {
        tokens.push_back(sample(*of.sampler, *use, i));
        if (i == last || !batch.token || tokens.back() != batch.token[i + 1]) {
            return;
        }
    }
}

using SampledTokens = std::vector<std::vector<llama_token>>;

// Samples with each sampler. One that fails does not disturb the others.
SampledTokens sample_all(const ContextUse & use, const llama_batch & batch, const std::vector<Sampling> & samplings,
                         SamplingErrors & errors) {
    SampledTokens tokens(samplings.size());
    for (size_t i = 0; i < samplings.size(); ++i) {
        try {
            sample_drafted(use, batch, samplings[i], tokens[i]);
        } catch (const GrammarLimit & error) {
            errors[i] = {true, error.what()};
        } catch (const std::exception & error) {
            errors[i] = {false, error.what()};
        }
    }
    return tokens;
}

void check_outputs(const ContextUse & use, LlamaBatch & batch, const Sampling & of) {
    check_range("n_drafted", of.n_drafted, 0, INT32_MAX / 2);
    for (int32_t i = 0; i <= of.n_drafted; ++i) {
        const int64_t index = int64_t{of.index} + i;
        if (index < 0 || index >= batch.size() || !(batch.logits()[index] || use->embeddings)) {
            throw_index_error("token " + std::to_string(index) + " of the batch has no logits to sample from");
        }
    }
}

using Sampled = std::tuple<int, SampledTokens, std::map<size_t, nb::object>>;

Sampled run_and_sample(const LlamaContext & self, LlamaBatch & batch, const std::vector<Sampling> & samplings) {
    ContextUse use(self);
    Guard guard(batch, "batch", true);
    for (const Sampling & sampling : samplings) {
        check_outputs(use, batch, sampling);
    }
    SampledTokens tokens;
    SamplingErrors errors;
    const llama_batch tokens_in = batch.get();
    const int status = run_batch(use, batch, false, [&] { tokens = sample_all(use, tokens_in, samplings, errors); });
    return {status, std::move(tokens), to_exceptions(errors)};
}

// While this thread waits, another thread may change the list, and so free the samplers.
std::shared_ptr<SamplerHandle> handle_of(LlamaSampler * sampler) {
    return sampler ? sampler->handle : throw nb::type_error("a sampler is None");
}

std::tuple<int, std::vector<llama_token>, std::map<size_t, nb::object>> decode_and_sample(
    const LlamaContext & self, LlamaBatch & batch, const std::vector<std::pair<int32_t, LlamaSampler *>> & samplers) {
    std::vector<Sampling> samplings;
    for (const auto & [index, sampler] : samplers) {
        samplings.push_back({index, handle_of(sampler), 0});
    }
    auto [status, sampled, errors] = run_and_sample(self, batch, samplings);
    std::vector<llama_token> tokens;
    for (const auto & one : sampled) {
        tokens.push_back(one.empty() ? LLAMA_TOKEN_NULL : one[0]);
    }
    return {status, std::move(tokens), std::move(errors)};
}

Sampled decode_and_verify(const LlamaContext & self, LlamaBatch & batch,
                          const std::vector<std::tuple<int32_t, LlamaSampler *, int32_t>> & samplers) {
    std::vector<Sampling> samplings;
    for (const auto & [index, sampler, n_drafted] : samplers) {
        samplings.push_back({index, handle_of(sampler), n_drafted});
    }
    return run_and_sample(self, batch, samplings);
}

} // namespace

// Long: a list of bindings.
void init_decode(nb::class_<LlamaContext> & context) {
    context
        .def("decode", &decode, nb::arg("batch"), R"doc(
            Evaluate a batch (llama_decode).

            Args:
                batch: At most `n_batch` tokens; at most `n_ubatch` if tokens attend to later ones. The positions of a
                    sequence must follow its last one.

            Returns:
                0 on success. 1 if the KV cache has no space for the batch: then nothing has changed. 2 if the decode was
                aborted: sequences may have lost positions, see seq_pos_max().

            Raises:
                ValueError: The batch cannot be evaluated: it is empty or too large, a token id, a position or a sequence
                    is out of range, or it asks for too many outputs.
                RuntimeError: The computation failed, with llama.cpp's reason.
            )doc")
        .def("decode_and_sample", &decode_and_sample, nb::arg("batch"), nb::arg("samplers"),
             nb::sig("def decode_and_sample(self, batch: LlamaBatch, "
                     "samplers: collections.abc.Sequence[tuple[int, LlamaSampler]]) "
                     "-> tuple[int, list[int], dict[int, Exception]]"),
             R"doc(
            Evaluate a batch and sample from it, without taking the GIL in between.

            Args:
                batch: As for decode().
                samplers: Pairs of the index of a token in the batch, which must have logits, and the sampler to use.
                    Several samplers may use the same token.

            Returns:
                The status, as of decode(). One token id for each sampler, or none if the status is not 0. The exceptions
                of samplers that failed, by their index in `samplers`: their token is -1. A grammar that takes too much
                work is a ValueError, any other failure a RuntimeError.

            Raises:
                IndexError: A token has no logits.
                ValueError, RuntimeError: As for decode().
            )doc")
        .def("decode_and_verify", &decode_and_verify, nb::arg("batch"), nb::arg("samplers"),
             nb::sig("def decode_and_verify(self, batch: LlamaBatch, "
                     "samplers: collections.abc.Sequence[tuple[int, LlamaSampler, int]]) "
                     "-> tuple[int, list[list[int]], dict[int, Exception]]"),
             R"doc(
            Evaluate a batch with drafts of what will be sampled, and sample as far as the drafts are right.

            A sampler chooses the token after the first one, and as long as that is the next one of the batch, the token
            after that. Each is accepted, so that a sampler is in the same state as if every token had been decoded alone.
            The positions of drafts that were not sampled are still in the memory: see seq_rm().

            Args:
                batch: As for decode().
                samplers: Triples of the index of a token in the batch, the sampler to use, and how many of the tokens that
                    follow in the batch, of the same sequence, are drafts. All of these tokens must have logits.

            Returns:
                The status, as of decode(). What each sampler chose, at least one token and at most one more than were
                drafted, or none if the status is not 0. The exceptions of samplers that failed, by their index in
                `samplers`, as of decode_and_sample(): their tokens are those from before the failure.

            Raises:
                IndexError: A token has no logits.
                ValueError, RuntimeError: As for decode().
            )doc")
        .def("encode", &encode, nb::arg("batch"), R"doc(
            Evaluate a batch with the encoder of an encoder-decoder model (llama_encode).

            Args:
                batch: At most `n_ubatch` tokens.

            Raises:
                ValueError: The model has no encoder, or the batch cannot be evaluated.
                RuntimeError: The computation failed or was aborted.
            )doc");
}
