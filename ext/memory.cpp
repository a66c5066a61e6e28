// Operations on a context's memory: the KV cache of its sequences (llama_memory_*).
#include "context.hpp"

namespace {

llama_memory_t memory_of(const ContextUse & use) { return llama_get_memory(use.get()); }

void kv_cache_clear(const LlamaContext & self, bool clear_data) {
    ContextUse use(self);
    if (!clear_data) { // microseconds: releasing the GIL would cost more
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
    if (!use->kv_unified && use->n_seq_max > 1) { // sequences have streams of their own, copied as a whole
        const llama_pos end = llama_memory_seq_pos_max(memory_of(use), source);
        if (p0 > 0 || (p1 >= 0 && p1 <= end)) {
            throw nb::value_error(
                "a part of a sequence can be copied only in a context with kv_unified=True: copy all of it "
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
    for (llama_seq_id other = 0; other < use->n_seq_max; ++other) { // llama.cpp looks only at the sequence's own stream
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
        throw nb::value_error("delta moves positions out of range");
    }
    llama_memory_seq_add(memory_of(use), seq_id, p0, p1, delta);
}

bool kv_cache_rewind(const LlamaContext & self) {
    ContextUse use(self);
    const llama_rope_type rope = llama_model_rope_type(llama_get_model(use.get()));
    if (!memory_of(use) || rope == LLAMA_ROPE_TYPE_MROPE || rope == LLAMA_ROPE_TYPE_IMROPE) {
        return false; // the last ones have several positions per token, which cannot be shifted
    }
    // Shifting no token at all makes llama.cpp begin its next search at the first cell.
    llama_memory_seq_add(memory_of(use), 0, INT32_MAX - 1, INT32_MAX, 1);
    return true;
}

void seq_div(const LlamaContext & self, llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    check_shift(use);
    if (d < 1) {
        throw nb::value_error("positions are divided by a positive number");
    }
    llama_memory_seq_div(memory_of(use), seq_id, p0, p1, d);
}

} // namespace

void init_memory(nb::class_<LlamaContext> & context) {
    context
        .def(
            "kv_cache_clear", &kv_cache_clear, nb::arg("clear_data") = true,
            "Clear the KV cache (llama_memory_clear).\n\n"
            "`clear_data` also zeroes the buffers, which takes time proportional to n_ctx; without it only the metadata is\n"
            "cleared, in microseconds, which is all that a new generation needs.")
        .def(
            "kv_cache_rewind", &kv_cache_rewind,
            "Let the next tokens take the first cells that are free, and not those behind the ones that were taken last.\n\n"
            "Returns False where llama.cpp cannot do that.")
        .def("seq_rm", &seq_rm, nb::arg("seq_id"), nb::arg("p0") = -1, nb::arg("p1") = -1,
             "Remove positions [p0, p1) of a sequence, or of all with seq_id=-1; a negative bound is open.\n\n"
             "Returns False if this memory cannot drop a part of a sequence.")
        .def("seq_cp", &seq_cp, nb::arg("seq_id_src"), nb::arg("seq_id_dst"), nb::arg("p0") = -1, nb::arg("p1") = -1,
             "Copy positions [p0, p1) of a sequence to another one; a negative bound is open.\n\n"
             "Raises ValueError for a part of a sequence in a context without kv_unified.")
        .def("seq_keep", &seq_keep, nb::arg("seq_id"), "Remove everything that does not belong to this sequence.")
        .def("seq_add", &seq_add, nb::arg("seq_id"), nb::arg("p0"), nb::arg("p1"), nb::arg("delta"),
             "Add `delta` to the positions [p0, p1) of a sequence. Raises RuntimeError where can_shift is False.")
        .def("seq_div", &seq_div, nb::arg("seq_id"), nb::arg("p0"), nb::arg("p1"), nb::arg("d"),
             "Divide the positions [p0, p1) of a sequence by `d`. Raises RuntimeError where can_shift is False.")
        .def(
            "seq_pos_min",
            [](const LlamaContext & self, llama_seq_id seq_id) {
                ContextUse use(self);
                use.check_sequence(seq_id);
                return memory_of(use) ? llama_memory_seq_pos_min(memory_of(use), seq_id) : -1;
            },
            nb::arg("seq_id"), "Smallest position of a sequence in the memory, -1 if it is empty.")
        .def(
            "seq_pos_max",
            [](const LlamaContext & self, llama_seq_id seq_id) {
                ContextUse use(self);
                use.check_sequence(seq_id);
                return memory_of(use) ? llama_memory_seq_pos_max(memory_of(use), seq_id) : -1;
            },
            nb::arg("seq_id"), "Largest position of a sequence in the memory, -1 if it is empty.")
        .def_prop_ro(
            "can_shift", [](const LlamaContext & self) { return ContextUse(self)->can_shift; },
            "Whether seq_add and seq_div work: not with every model, and only if type_k is F16 or F32.");
}
