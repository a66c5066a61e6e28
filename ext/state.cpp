// Saving and restoring the state of a context, whole or of one sequence: as bytes, as a file, or within the process.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <utility>

#include "context.hpp"
#include "conversion.hpp"
#include "errors.hpp"
#include "modules.hpp"
#include "pages.hpp"
#include "state_file.hpp"
#include "state_format.hpp"

namespace {

// The Python class LlamaState: the state of one sequence. It never leaves the process, and so needs no checksum.
struct LlamaState {
    std::unique_ptr<Pages> pages;
    size_t size;
};

using Tokens = std::vector<llama_token>;

nb::bytes get_data(const LlamaContext & self, llama_seq_id seq_id, uint32_t flags) {
    ContextUse use(self);
    check_state_flags(flags);
    clear_logged_errors();
    const size_t capacity = saved_size(use.get(), seq_id, {}, flags);
    // Written in place: a state can be large, and a copy would need as much memory again.
    PyObject * bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(capacity));
    if (!bytes) {
        throw nb::python_error();
    }
    nb::bytes result = nb::steal<nb::bytes>(bytes);
    size_t size = 0;
    {
        WithoutGil release;
        size = save_state(use.get(), use->model->weights, seq_id, {}, flags,
                          reinterpret_cast<uint8_t *>(PyBytes_AsString(bytes)), capacity);
    }
    if (size < capacity) {
        return nb::bytes(result.c_str(), size);
    }
    return result;
}

nb::bytes get_sequence_data(const LlamaContext & self, llama_seq_id seq_id, uint32_t flags) {
    ContextUse(self).check_sequence(seq_id);
    return get_data(self, seq_id, flags);
}

LlamaState copy_sequence(const LlamaContext & self, llama_seq_id seq_id, uint32_t flags) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    check_state_flags(flags);
    clear_logged_errors();
    WithoutGil release;
    auto pages = std::make_unique<Pages>(saved_size(use.get(), seq_id, {}, flags));
    const size_t size = save_state(use.get(), use->model->weights, seq_id, {}, flags, pages->data(), pages->size(), false);
    return {std::move(pages), size};
}

nb::bytes to_bytes(const LlamaState & self) {
    nb::bytes result(self.pages->data(), self.size);
    add_checksum(reinterpret_cast<uint8_t *>(PyBytes_AsString(result.ptr())), self.size);
    return result;
}

// Checks and restores a state; returns the token ids saved with it.
Tokens restore(const ContextUse & use, const uint8_t * data, size_t size, llama_seq_id seq_id, uint32_t flags,
               bool trusted = false) {
    if (seq_id != kWholeContext) {
        use.check_sequence(seq_id);
    }
    SavedState state = check_state(use.get(), use->model->weights, data, size, seq_id, flags, trusted);
    use->outputs.clear();
    restore_state(use.get(), state, seq_id, flags);
    return std::move(state.tokens);
}

void set_data(const LlamaContext & self, nb::bytes data, llama_seq_id seq_id, uint32_t flags) {
    ContextUse use(self);
    clear_logged_errors();
    const auto * bytes = static_cast<const uint8_t *>(data.data());
    const size_t size = data.size();
    WithoutGil release;
    restore(use, bytes, size, seq_id, flags);
}

void set_sequence_data(const LlamaContext & self, nb::bytes data, llama_seq_id seq_id, uint32_t flags) {
    ContextUse(self).check_sequence(seq_id);
    set_data(self, std::move(data), seq_id, flags);
}

void restore_copy(const LlamaContext & self, const LlamaState & state, llama_seq_id seq_id, uint32_t flags) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    clear_logged_errors();
    WithoutGil release;
    restore(use, state.pages->data(), state.size, seq_id, flags, true);
}

void save_file(const LlamaContext & self, const std::string & path, llama_seq_id seq_id, const Tokens & tokens) {
    ContextUse use(self);
    clear_logged_errors();
    int error = 0;
    {
        WithoutGil release;
        std::vector<uint8_t> bytes(saved_size(use.get(), seq_id, tokens, 0));
        error = write_file(path, bytes.data(),
                           save_state(use.get(), use->model->weights, seq_id, tokens, 0, bytes.data(), bytes.size()));
    }
    if (error) {
        raise_os_error(path, error);
    }
}

Tokens load_file(const LlamaContext & self, const std::string & path, llama_seq_id seq_id) {
    ContextUse use(self);
    clear_logged_errors();
    Tokens tokens;
    int error = 0;
    {
        WithoutGil release;
        std::vector<uint8_t> bytes;
        error = read_file(path, bytes);
        if (!error) {
            tokens = restore(use, bytes.data(), bytes.size(), seq_id, 0);
        }
    }
    if (error) {
        raise_os_error(path, error);
    }
    return tokens;
}

// Long: a list of bindings.
void init_whole(nb::class_<LlamaContext> & context) {
    context
        .def(
            "state_get_data", [](const LlamaContext & self) { return get_data(self, kWholeContext, 0); }, R"doc(
            Save the state of all sequences (llama_state_get_data).

            Returns:
                Bytes for state_set_data(): a header with a checksum, and the state.

            Raises:
                ValueError: The context has n_rs_seq > 0: save each sequence.
            )doc")
        .def(
            "state_set_data",
            [](const LlamaContext & self, nb::bytes data) { set_data(self, std::move(data), kWholeContext, 0); },
            nb::arg("data"), R"doc(
            Restore the state of all sequences (llama_state_set_data).

            Args:
                data: What state_get_data() returned.

            Raises:
                ValueError: The bytes are damaged, or were saved with another model.
                RuntimeError: The state does not fit this context. Then what it was to replace is gone.
            )doc")
        .def(
            "state_save_file",
            [](const LlamaContext & self, nb::object path, const Tokens & tokens) {
                save_file(self, to_path(path), kWholeContext, tokens);
            },
            nb::arg("path"), nb::arg("tokens") = Tokens(),
            nb::sig(
                "def state_save_file(self, path: str | os.PathLike[str], tokens: collections.abc.Sequence[int] = []) -> None"),
            R"doc(
            Save the state of all sequences to a file, which is complete or absent.

            Args:
                path: The file.
                tokens: Token ids to save with the state.

            Raises:
                OSError: The file cannot be written.
                ValueError: The context has n_rs_seq > 0: save each sequence.
            )doc")
        .def(
            "state_load_file",
            [](const LlamaContext & self, nb::object path) { return load_file(self, to_path(path), kWholeContext); },
            nb::arg("path"), nb::sig("def state_load_file(self, path: str | os.PathLike[str]) -> list[int]"), R"doc(
            Restore the state of all sequences from a file.

            Args:
                path: A file of state_save_file().

            Returns:
                The token ids saved with the state.

            Raises:
                OSError: The file cannot be read.
                ValueError: The file is damaged, or was saved with another model.
                RuntimeError: The state does not fit this context. Then what it was to replace is gone.
            )doc");
}

// Long: a list of bindings.
void init_sequence(nb::class_<LlamaContext> & context) {
    context
        .def("state_seq_get_data", &get_sequence_data, nb::arg("seq_id"), nb::arg("flags") = 0, R"doc(
            Save the state of one sequence (llama_state_seq_get_data_ext).

            Args:
                seq_id: The sequence.
                flags: 0, or LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: only the parts that cannot be rolled back (recurrent
                    states, sliding windows).

            Returns:
                Bytes for state_seq_set_data(): a header with a checksum, and the state.

            Raises:
                ValueError: The context has no such sequence, or llama.cpp no such flag.
            )doc")
        .def("state_seq_copy", &copy_sequence, nb::arg("seq_id"), nb::arg("flags") = 0, R"doc(
            Save the state of one sequence for state_seq_set_data() in this process: faster than as bytes.

            Args:
                seq_id: The sequence.
                flags: As for state_seq_get_data().

            Raises:
                ValueError: The context has no such sequence, or llama.cpp no such flag.
            )doc")
        .def("state_seq_set_data", &restore_copy, nb::arg("data"), nb::arg("seq_id"), nb::arg("flags") = 0)
        .def("state_seq_set_data", &set_sequence_data, nb::arg("data"), nb::arg("seq_id"), nb::arg("flags") = 0, R"doc(
            Replace a sequence by a saved one (llama_state_seq_set_data_ext).

            Args:
                data: What state_seq_get_data() or state_seq_copy() returned.
                seq_id: The sequence to replace.
                flags: The flags that `data` was saved with.

            Raises:
                ValueError: The data is damaged, or was saved with another model or other flags; or the context has no such
                    sequence.
                RuntimeError: The state does not fit this context. Then what it was to replace is gone.
            )doc");
}

// Long: a list of bindings.
void init_sequence_file(nb::class_<LlamaContext> & context) {
    context
        .def(
            "state_seq_save_file",
            [](const LlamaContext & self, nb::object path, llama_seq_id seq_id, const Tokens & tokens) {
                ContextUse(self).check_sequence(seq_id);
                save_file(self, to_path(path), seq_id, tokens);
            },
            nb::arg("path"), nb::arg("seq_id"), nb::arg("tokens") = Tokens(),
            nb::sig("def state_seq_save_file(self, path: str | os.PathLike[str], seq_id: int, "
                    "tokens: collections.abc.Sequence[int] = []) -> None"),
            R"doc(
            Save the state of one sequence to a file, which is complete or absent.

            Args:
                path: The file.
                seq_id: The sequence.
                tokens: Token ids to save with the state.

            Raises:
                OSError: The file cannot be written.
                ValueError: The context has no such sequence.
            )doc")
        .def(
            "state_seq_load_file",
            [](const LlamaContext & self, nb::object path, llama_seq_id seq_id) {
                ContextUse(self).check_sequence(seq_id);
                return load_file(self, to_path(path), seq_id);
            },
            nb::arg("path"), nb::arg("seq_id"),
            nb::sig("def state_seq_load_file(self, path: str | os.PathLike[str], seq_id: int) -> list[int]"), R"doc(
            Replace a sequence by one from a file.

            Args:
                path: A file of state_seq_save_file().
                seq_id: The sequence to replace.

            Returns:
                The token ids saved with the state.

            Raises:
                OSError: The file cannot be read.
                ValueError: The file is damaged, or was saved with another model; or the context has no such sequence.
                RuntimeError: The state does not fit this context. Then what it was to replace is gone.
            )doc");
}

} // namespace

void init_state(nb::module_ & m, nb::class_<LlamaContext> & context) {
    nb::class_<LlamaState>(m, "LlamaState", R"doc(
        The state of one sequence, in memory that is given back to the system at once.

        >>> state = context.state_seq_copy(0)
        >>> context.state_seq_set_data(state, 1)
        >>> context.state_seq_set_data(bytes(state), 2)
        )doc")
        .def(
            "__len__", [](const LlamaState & self) { return self.size; }, "Size in bytes.")
        .def("__bytes__", &to_bytes, "The same bytes as LlamaContext.state_seq_get_data() returns.");
    init_whole(context);
    init_sequence(context);
    init_sequence_file(context);
}
