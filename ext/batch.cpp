#include "batch.hpp"

#include <string>

// llama.cpp subtracts positions from each other: beyond half of the range, such a difference would overflow.
static void check_positions(llama_pos pos, size_t n) {
    constexpr llama_pos kMaxPosition = 1 << 30;
    if (pos < 0 || pos > kMaxPosition || n > static_cast<size_t>(kMaxPosition - pos) + 1) {
        throw nb::value_error(("positions must be from 0 to 1073741824: " + std::to_string(n) + " from " +
                               std::to_string(pos) + " are out of range")
                                  .c_str());
    }
}

LlamaBatch::LlamaBatch(int32_t capacity, int32_t n_seq_max) : capacity_(capacity), n_seq_max_(n_seq_max) {
    constexpr int32_t kMaxCapacity = 1 << 24;
    constexpr int64_t kMaxSequenceIds = 1 << 24;
    if (capacity < 1 || capacity > kMaxCapacity) {
        throw nb::value_error(("n_tokens must be from 1 to 16777216, not " + std::to_string(capacity)).c_str());
    }
    const auto max_sequences = static_cast<int32_t>(llama_max_parallel_sequences());
    if (n_seq_max < 1 || n_seq_max > max_sequences) {
        throw nb::value_error(
            ("n_seq_max must be from 1 to " + std::to_string(max_sequences) + ", not " + std::to_string(n_seq_max))
                .c_str());
    }
    if (int64_t{capacity} * n_seq_max > kMaxSequenceIds) {
        throw nb::value_error(("n_tokens * n_seq_max must be at most 16777216, not " + std::to_string(capacity) + " * " +
                               std::to_string(n_seq_max) + ": split the batch")
                                  .c_str());
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
        throw nb::value_error(("the batch holds " + std::to_string(n_tokens_) + " of " + std::to_string(capacity_) +
                               " tokens: no space for " + std::to_string(n) + " more. Decode and clear() it first")
                                  .c_str());
    }
}

void LlamaBatch::add(llama_token token, llama_pos pos, const std::vector<llama_seq_id> & seq_ids, bool logits) {
    check_space(1);
    if (seq_ids.empty() || seq_ids.size() > static_cast<size_t>(n_seq_max_)) {
        throw nb::value_error(
            ("a token belongs to 1 to " + std::to_string(n_seq_max_) + " sequences, not " + std::to_string(seq_ids.size()))
                .c_str());
    }
    check_positions(pos, 1);
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

llama_batch LlamaBatch::get() {
    return {n_tokens_, tokens_.data(), nullptr, positions_.data(), n_seq_ids_.data(), seq_id_rows_.data(), logits_.data()};
}

void init_batch(nb::module_ & m) {
    nb::class_<LlamaBatch>(m, "LlamaBatch",
                           "Tokens of one or many sequences, to be evaluated by one LlamaContext.decode (llama_batch).\n\n"
                           ">>> batch = LlamaBatch(8)\n"
                           ">>> batch.add_sequence([1, 2, 3])\n"
                           ">>> len(batch)\n"
                           "3")
        .def(nb::init<int32_t, int32_t>(), nb::arg("n_tokens"), nb::arg("n_seq_max") = 1,
             "An empty batch for up to `n_tokens` tokens, each in up to `n_seq_max` sequences.")
        .def(
            "add",
            [](LlamaBatch & self, llama_token token, llama_pos pos, const std::vector<llama_seq_id> & seq_ids,
               bool logits) {
                Guard guard(self, "batch");
                self.add(token, pos, seq_ids, logits);
            },
            nb::arg("token"), nb::arg("pos"), nb::arg("seq_ids") = std::vector<llama_seq_id>{0}, nb::arg("logits") = false,
            "Append `token` at position `pos` of every sequence of `seq_ids`; with `logits`, its logits are computed.\n\n"
            "Raises ValueError if the batch is full.")
        .def(
            "add_sequence",
            [](LlamaBatch & self, const std::vector<llama_token> & tokens, llama_pos pos, llama_seq_id seq_id,
               bool logits_last, bool logits_all) {
                Guard guard(self, "batch");
                self.add_sequence(tokens, pos, seq_id, logits_last, logits_all);
            },
            nb::arg("tokens"), nb::arg("pos") = 0, nb::arg("seq_id") = 0, nb::arg("logits_last") = true,
            nb::arg("logits_all") = false,
            "Append `tokens` at positions `pos`, `pos + 1`, ... of one sequence, with logits for the last one, or with\n"
            "`logits_all` for all of them, as embeddings want it.\n\n"
            "Raises ValueError, and appends nothing, if they do not fit.")
        .def(
            "clear",
            [](LlamaBatch & self) {
                Guard guard(self, "batch");
                self.clear();
            },
            "Remove all tokens.")
        .def("__len__", &LlamaBatch::size)
        .def_prop_ro("capacity", &LlamaBatch::capacity, "How many tokens fit.")
        .def_prop_ro("n_seq_max", &LlamaBatch::n_seq_max, "How many sequences a token can belong to.");
}
