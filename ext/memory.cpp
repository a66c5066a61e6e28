// The memory of a context: the KV cache of its sequences (llama_memory_*).
#include "context.hpp"
#include "errors.hpp"
#include "modules.hpp"

namespace {

llama_memory_t memory_of(const ContextUse & use) { return llama_get_memory(use.get()); }

void kv_cache_clear(const LlamaContext & self, bool clear_data) {
    ContextUse use(self);
    if (!clear_data) { // takes microseconds: to release the GIL would cost more
        llama_memory_clear(memory_of(use), false);
        return;
    }
    WithoutGil release;
    llama_memory_clear(memory_of(use), true);
}

bool seq_rm(const LlamaContext & self, llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    ContextUse use(self);
    if (seq_id != -1) {
        use.check_sequence(seq_id);
    }
    return llama_memory_seq_rm(memory_of(use), seq_id, p0, p1);
}

void seq_cp(const LlamaContext & self, llama_seq_id source, llama_seq_id target, llama_pos p0, llama_pos p1) {
    ContextUse use(self);
    use.check_sequence(source);
    use.check_sequence(target);
    if (source == target) {
        return;
    }
    if (!use->kv_unified && use->n_seq_max > 1) { // each sequence has a buffer of its own, which is copied as a whole
        const llama_pos end = llama_memory_seq_pos_max(memory_of(use), source);
        if (p0 > 0 || (p1 >= 0 && p1 <= end)) {
            throw_value_error("a part of a sequence can be copied only in a context with kv_unified=True: copy all of it "
                              "(p0=-1, p1=-1) and remove the rest from the target with seq_rm");
        }
        p0 = p1 = -1;
    }
    llama_memory_seq_cp(memory_of(use), source, target, p0, p1);
}

void seq_keep(const LlamaContext & self, llama_seq_id seq_id) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    if (use->kv_unified) {
        llama_memory_seq_keep(memory_of(use), seq_id);
        return;
    }
    for (llama_seq_id other = 0; other < use->n_seq_max; ++other) { // llama.cpp only looks at the sequence's own buffer
        if (other != seq_id) {
            llama_memory_seq_rm(memory_of(use), other, -1, -1);
        }
    }
}

void check_shift(const ContextUse & use) {
    if (!use->can_shift) {
        throw std::runtime_error("the model's memory cannot shift positions (see can_shift)");
    }
}

void seq_add(const LlamaContext & self, llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos delta) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    check_shift(use);
    const int64_t last = llama_memory_seq_pos_max(memory_of(use), seq_id);
    if (last + delta > INT32_MAX / 2 || delta < -INT32_MAX / 2) {
        throw_value_error("delta moves positions out of range");
    }
    llama_memory_seq_add(memory_of(use), seq_id, p0, p1, delta);
}

bool kv_cache_rewind(const LlamaContext & self) {
    ContextUse use(self);
    const llama_rope_type rope = llama_model_rope_type(llama_get_model(use.get()));
    if (!memory_of(use) || rope == LLAMA_ROPE_TYPE_MROPE || rope == LLAMA_ROPE_TYPE_IMROPE) {
        return false; // with these kinds of RoPE a token has several positions, which cannot be shifted
    }
    // After a shift of no token at all, llama.cpp begins its next search at the first cell.
    llama_memory_seq_add(memory_of(use), 0, INT32_MAX - 1, INT32_MAX, 1);
    return true;
}

void seq_div(const LlamaContext & self, llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    check_shift(use);
    if (d < 1) {
        throw_value_error("d must be positive, not " + std::to_string(d));
    }
    llama_memory_seq_div(memory_of(use), seq_id, p0, p1, d);
}

llama_pos seq_pos_min(const LlamaContext & self, llama_seq_id seq_id) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    return memory_of(use) ? llama_memory_seq_pos_min(memory_of(use), seq_id) : -1;
}

llama_pos seq_pos_max(const LlamaContext & self, llama_seq_id seq_id) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    return memory_of(use) ? llama_memory_seq_pos_max(memory_of(use), seq_id) : -1;
}

void init_cache(nb::class_<LlamaContext> & context) {
    context
        .def("kv_cache_clear", &kv_cache_clear, nb::arg("clear_data") = true, R"doc(
            Remove all tokens from the KV cache (llama_memory_clear).

            Args:
                clear_data: Also write zeros to the buffers, which takes time in proportion to n_ctx. Without it, only the
                    metadata is cleared, in microseconds, which is enough for a new generation.
            )doc")
        .def("kv_cache_rewind", &kv_cache_rewind, R"doc(
            Let the next tokens take the first free cells, instead of those behind the cells that were taken last.

            Returns:
                False if llama.cpp cannot do that for this memory: then nothing has changed.
            )doc")
        .def_prop_ro(
            "can_shift", [](const LlamaContext & self) { return ContextUse(self)->can_shift; },
            "Whether seq_add() and seq_div() work: not for every model, and only if type_k is F16 or F32.");
}

// Long: a list of bindings.
void init_sequences(nb::class_<LlamaContext> & context) {
    context
        .def("seq_rm", &seq_rm, nb::arg("seq_id"), nb::arg("p0") = -1, nb::arg("p1") = -1, R"doc(
            Remove positions [p0, p1) of a sequence (llama_memory_seq_rm).

            Args:
                seq_id: The sequence, or -1 for all of them.
                p0: First position to remove; negative: from the beginning.
                p1: First position to keep; negative: to the end.

            Returns:
                False if this memory cannot remove a part of a sequence: then nothing has changed.

            Raises:
                ValueError: The context has no such sequence.
            )doc")
        .def("seq_cp", &seq_cp, nb::arg("seq_id_src"), nb::arg("seq_id_dst"), nb::arg("p0") = -1, nb::arg("p1") = -1,
             R"doc(
            Copy positions [p0, p1) of a sequence to another one (llama_memory_seq_cp).

            Args:
                seq_id_src: The sequence to copy.
                seq_id_dst: The other one.
                p0: First position to copy; negative: from the beginning.
                p1: First position not to copy; negative: to the end.

            Raises:
                ValueError: The context has no such sequence; or it has no kv_unified, and [p0, p1) is only a part of the
                    sequence.
            )doc")
        .def("seq_keep", &seq_keep, nb::arg("seq_id"), R"doc(
            Remove all other sequences (llama_memory_seq_keep).

            Raises:
                ValueError: The context has no such sequence.
            )doc")
        .def("seq_add", &seq_add, nb::arg("seq_id"), nb::arg("p0"), nb::arg("p1"), nb::arg("delta"), R"doc(
            Add `delta` to the positions [p0, p1) of a sequence (llama_memory_seq_add).

            Raises:
                ValueError: The context has no such sequence, or a position would be out of range.
                RuntimeError: can_shift is False.
            )doc")
        .def("seq_div", &seq_div, nb::arg("seq_id"), nb::arg("p0"), nb::arg("p1"), nb::arg("d"), R"doc(
            Divide the positions [p0, p1) of a sequence by `d`, and round down (llama_memory_seq_div).

            Raises:
                ValueError: The context has no such sequence, or `d` is not positive.
                RuntimeError: can_shift is False.
            )doc")
        .def("seq_pos_min", &seq_pos_min, nb::arg("seq_id"), R"doc(
            Return the smallest position of a sequence, or -1 if it is empty (llama_memory_seq_pos_min).

            Raises:
                ValueError: The context has no such sequence.
            )doc")
        .def("seq_pos_max", &seq_pos_max, nb::arg("seq_id"), R"doc(
            Return the largest position of a sequence, or -1 if it is empty (llama_memory_seq_pos_max).

            Raises:
                ValueError: The context has no such sequence.
            )doc");
}

} // namespace

void init_memory(nb::class_<LlamaContext> & context) {
    init_cache(context);
    init_sequences(context);
}
