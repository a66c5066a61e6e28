#include "batch.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <string>

#include "errors.hpp"
#include "guard.hpp"
#include "modules.hpp"

// llama.cpp subtracts positions from each other: beyond half of the range, such a difference would overflow.
static void check_positions(llama_pos pos, size_t n) {
    constexpr llama_pos kMaxPosition = 1 << 30;
    if (pos < 0 || pos > kMaxPosition || n > static_cast<size_t>(kMaxPosition - pos) + 1) {
        throw_value_error("positions must be from 0 to 1073741824: " + std::to_string(n) + " from " + std::to_string(pos) +
                          " are out of range");
    }
}

LlamaBatch::LlamaBatch(int32_t capacity, int32_t n_seq_max) : capacity_(capacity), n_seq_max_(n_seq_max) {
    constexpr int32_t kMaxCapacity = 1 << 24;
    constexpr int64_t kMaxSequenceIds = 1 << 24;
    check_range("n_tokens", capacity, 1, kMaxCapacity);
    check_range("n_seq_max", n_seq_max, 1, static_cast<int64_t>(llama_max_parallel_sequences()));
    if (int64_t{capacity} * n_seq_max > kMaxSequenceIds) {
        throw_value_error("n_tokens * n_seq_max must be at most 16777216, not " + std::to_string(capacity) + " * " +
                          std::to_string(n_seq_max) + ": split the batch");
    }
    tokens_.resize(capacity);
    positions_.resize(capacity);
    n_seq_ids_.resize(capacity);
    seq_ids_.resize(static_cast<size_t>(capacity) * n_seq_max);
    seq_id_rows_.resize(static_cast<size_t>(capacity) + 1, nullptr); // llama.cpp ends the rows with a null pointer
    for (int32_t i = 0; i < capacity; ++i) {
        seq_id_rows_[i] = &seq_ids_[static_cast<size_t>(i) * n_seq_max];
    }
    logits_.resize(capacity);
}

void LlamaBatch::check_space(size_t n) const {
    if (n > static_cast<size_t>(capacity_ - n_tokens_)) {
        throw_value_error("the batch holds " + std::to_string(n_tokens_) + " of " + std::to_string(capacity_) +
                          " tokens: no space for " + std::to_string(n) + " more. Decode and clear() it first");
    }
}

void LlamaBatch::add(llama_token token, llama_pos pos, const std::vector<llama_seq_id> & seq_ids, bool logits) {
    if (embeddings_) {
        throw_value_error("the batch holds embeddings, which have a batch of their own: decode and clear() it first");
    }
    check_space(1);
    if (seq_ids.empty() || seq_ids.size() > static_cast<size_t>(n_seq_max_)) {
        throw_value_error("a token belongs to 1 to " + std::to_string(n_seq_max_) + " sequences, not " +
                          std::to_string(seq_ids.size()));
    }
    check_positions(pos, 1);
    append(token, pos, seq_ids, logits);
}

void LlamaBatch::append(llama_token token, llama_pos pos, const std::vector<llama_seq_id> & seq_ids, bool logits) {
    const int32_t i = n_tokens_;
    tokens_[i] = token;
    positions_[i] = pos;
    n_seq_ids_[i] = static_cast<int32_t>(seq_ids.size());
    std::copy(seq_ids.begin(), seq_ids.end(), seq_id_rows_[i]);
    logits_[i] = logits;
    ++n_tokens_;
}

void LlamaBatch::add_sequence(const std::vector<llama_token> & tokens, llama_pos pos, llama_seq_id seq_id, bool logits_last,
                              bool logits_all) {
    check_space(tokens.size());
    check_positions(pos, tokens.size());
    const std::vector<llama_seq_id> seq_ids{seq_id};
    for (size_t i = 0; i < tokens.size(); ++i) {
        add(tokens[i], pos + static_cast<llama_pos>(i), seq_ids, logits_all || (logits_last && i + 1 == tokens.size()));
    }
}

void LlamaBatch::set_embeddings(const LlamaEmbeddings & embeddings, int32_t first, int32_t n, llama_pos pos,
                                llama_seq_id seq_id, bool logits_last, bool whole) {
    if (n_tokens_ != 0) {
        throw_value_error("embeddings have a batch of their own: decode and clear() it first");
    }
    check_range("first", first, 0, embeddings.n_tokens - 1);
    check_range("n", n, 1, embeddings.n_tokens - first);
    check_space(static_cast<size_t>(n));
    check_positions(pos, static_cast<size_t>(n));
    const std::vector<llama_seq_id> seq_ids{seq_id};
    for (int32_t i = 0; i < n; ++i) {
        append(0, pos + i, seq_ids, logits_last && i + 1 == n);
    }
    embeddings_ = embeddings.values;
    n_embd_ = embeddings.n_embd;
    first_value_ = static_cast<size_t>(first) * static_cast<size_t>(n_embd_);
    whole_ = whole;
}

void LlamaBatch::clear() {
    n_tokens_ = 0;
    embeddings_.reset();
    whole_ = false;
}

llama_batch LlamaBatch::get() {
    // llama.cpp takes embeddings by a pointer to values that it could change, and reads them only.
    float * values = embeddings_ ? const_cast<float *>(embeddings_->data()) + first_value_ : nullptr;
    return {
        n_tokens_,     values ? nullptr : tokens_.data(), values, positions_.data(), n_seq_ids_.data(), seq_id_rows_.data(),
        logits_.data()};
}

static void init_changes(nb::class_<LlamaBatch> & batch) {
    batch
        .def(
            "add",
            [](LlamaBatch & self, llama_token token, llama_pos pos, const std::vector<llama_seq_id> & seq_ids,
               bool logits) {
                Guard guard(self, "batch");
                self.add(token, pos, seq_ids, logits);
            },
            nb::arg("token"), nb::arg("pos"), nb::arg("seq_ids") = std::vector<llama_seq_id>{0}, nb::arg("logits") = false,
            R"doc(
            Append one token.

            Args:
                token: Token id.
                pos: Its position in each of its sequences, from 0 to 2**30.
                seq_ids: The sequences that it belongs to, from 1 to `n_seq_max` of them.
                logits: Compute its logits.

            Raises:
                ValueError: The batch is full, or an argument is out of range.
            )doc")
        .def(
            "clear",
            [](LlamaBatch & self) {
                Guard guard(self, "batch");
                self.clear();
            },
            "Remove all tokens.");
}

static void init_sequences(nb::class_<LlamaBatch> & batch) {
    batch.def(
        "add_sequence",
        [](LlamaBatch & self, const std::vector<llama_token> & tokens, llama_pos pos, llama_seq_id seq_id, bool logits_last,
           bool logits_all) {
            Guard guard(self, "batch");
            self.add_sequence(tokens, pos, seq_id, logits_last, logits_all);
        },
        nb::arg("tokens"), nb::arg("pos") = 0, nb::arg("seq_id") = 0, nb::arg("logits_last") = true,
        nb::arg("logits_all") = false, R"doc(
            Append the tokens of one sequence, at positions `pos`, `pos + 1`, ...

            Args:
                tokens: Token ids.
                pos: Position of the first token, from 0 to 2**30.
                seq_id: The sequence.
                logits_last: Compute the logits of the last token.
                logits_all: Compute the logits of all tokens, as embeddings need it.

            Raises:
                ValueError: The tokens do not fit, or a position is out of range. Then nothing is appended.
            )doc");
}

static void init_embeddings(nb::class_<LlamaBatch> & batch) {
    batch.def(
        "set_embeddings",
        [](LlamaBatch & self, const LlamaEmbeddings & embeddings, int32_t first, int32_t n, llama_pos pos,
           llama_seq_id seq_id, bool logits_last, bool whole) {
            Guard guard(self, "batch");
            self.set_embeddings(embeddings, first, n, pos, seq_id, logits_last, whole);
        },
        nb::arg("embeddings"), nb::arg("first"), nb::arg("n"), nb::arg("pos") = 0, nb::arg("seq_id") = 0,
        nb::arg("logits_last") = false, nb::arg("whole") = false, R"doc(
            Fill an empty batch with embeddings of one sequence, at positions `pos`, `pos + 1`, ...

            Args:
                embeddings: What LlamaProjector.encode() returned.
                first: The first one to take.
                n: How many to take.
                pos: Position of the first one, from 0 to 2**30.
                seq_id: The sequence.
                logits_last: Compute the logits after the last one.
                whole: They attend to each other in both directions, so that they are computed in one pass:
                    there are at most `n_ubatch` of them.

            Raises:
                ValueError: The batch is not empty or too small, or an argument is out of range.
            )doc");
}

void init_batch(nb::module_ & m) {
    nb::class_<LlamaBatch> batch(m, "LlamaBatch", R"doc(
        Tokens of one or many sequences, which one LlamaContext.decode() evaluates (llama_batch).

        >>> batch = LlamaBatch(8)
        >>> batch.add_sequence([1, 2, 3])
        >>> len(batch)
        3
        )doc");
    batch.def(nb::init<int32_t, int32_t>(), nb::arg("n_tokens"), nb::arg("n_seq_max") = 1, R"doc(
            Create an empty batch.

            Args:
                n_tokens: Capacity in tokens, at most 2**24.
                n_seq_max: Most sequences that a token can belong to. `n_tokens * n_seq_max` is at most 2**24.

            Raises:
                ValueError: An argument is out of range.
            )doc");
    init_changes(batch);
    init_sequences(batch);
    init_embeddings(batch);
    batch.def("__len__", &LlamaBatch::size)
        .def_prop_ro("capacity", &LlamaBatch::capacity, "Most tokens in the batch.")
        .def_prop_ro("n_seq_max", &LlamaBatch::n_seq_max, "Most sequences that a token can belong to.");
}
