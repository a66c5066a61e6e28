// Saving and restoring a context's state, whole or of one sequence, as bytes or as a file.
//
// llama.cpp trusts the bytes it restores, and damaged ones can abort the process. So a state travels in an envelope that
// names the model and carries a checksum: what is damaged or foreign is refused before llama.cpp sees it.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#ifndef _WIN32
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "context.hpp"

namespace {

constexpr uint32_t kMagic = 0x53594c43; // "CLYS"
constexpr uint32_t kVersion = 2;
constexpr llama_seq_id kWhole = -1;

struct Header {
    uint32_t magic;
    uint32_t version;
    uint32_t kind;     // see kind_of()
    uint32_t n_tokens; // token ids between the header and the state
    uint64_t model;    // fingerprint
    uint64_t size;     // of the state in bytes
    uint64_t checksum; // of the token ids and the state
};

// A 64-bit checksum at memory speed: four independent lanes of multiply and rotate.
uint64_t checksum(const uint8_t * data, size_t size) {
    constexpr uint64_t kPrime = 0x9e3779b185ebca87ULL;
    uint64_t lanes[4] = {size, kPrime, ~size, ~kPrime};
    size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        for (int lane = 0; lane < 4; ++lane) {
            uint64_t word;
            std::memcpy(&word, data + i + 8 * lane, 8);
            lanes[lane] = (lanes[lane] ^ word) * kPrime;
            lanes[lane] = (lanes[lane] << 29) | (lanes[lane] >> 35);
        }
    }
    uint64_t hash = lanes[0];
    for (int lane = 1; lane < 4; ++lane) {
        hash = (hash ^ lanes[lane]) * kPrime;
        hash ^= hash >> 32;
    }
    for (; i < size; ++i) {
        hash = (hash ^ data[i]) * kPrime;
        hash ^= hash >> 32;
    }
    return hash;
}

// What tells models apart: states of models of the same shape differ in nothing but what their numbers mean.
uint64_t fingerprint(const ModelHandle & handle, const llama_model * model) {
    char name[128] = {};
    llama_model_desc(model, name, sizeof name);
    const uint64_t numbers[] = {llama_model_n_params(model),
                                llama_model_size(model),
                                static_cast<uint64_t>(llama_model_n_layer(model)),
                                static_cast<uint64_t>(llama_model_n_embd(model)),
                                static_cast<uint64_t>(llama_model_n_head_kv(model)),
                                static_cast<uint64_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)))};
    return checksum(reinterpret_cast<const uint8_t *>(numbers), sizeof numbers) ^
           checksum(reinterpret_cast<const uint8_t *>(name), sizeof name) ^ handle.weights;
}

// 0 for the whole context, odd for one sequence, with its flags, which say what was saved of it.
uint32_t kind_of(llama_seq_id seq_id, uint32_t flags) {
    if (flags & ~static_cast<uint32_t>(LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)) {
        throw nb::value_error(
            ("flags can only be LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, not " + std::to_string(flags)).c_str());
    }
    return seq_id == kWhole ? 0 : 1 + 2 * flags;
}

// ---------------------------------------------------------------------------------------------------------------- memory

// Memory straight from the system: states are large, come and go, and should be given back at once.
class Pages {
  public:
    explicit Pages(size_t size) : size_(size) {
#ifdef _WIN32
        data_ = static_cast<uint8_t *>(std::malloc(size));
        if (!data_) {
            throw std::bad_alloc();
        }
#else
        void * pages = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED) {
            throw std::bad_alloc();
        }
#ifdef MADV_HUGEPAGE
        madvise(pages, size, MADV_HUGEPAGE); // to fault in 4 KiB at a time would take longer than to copy them
#endif
        data_ = static_cast<uint8_t *>(pages);
#endif
    }
    ~Pages() {
#ifdef _WIN32
        std::free(data_);
#else
        munmap(data_, size_);
#endif
    }
    Pages(const Pages &) = delete;
    Pages & operator=(const Pages &) = delete;

    uint8_t * data() const { return data_; }
    size_t size() const { return size_; }

  private:
    uint8_t * data_;
    const size_t size_;
};

// The Python class LlamaState: the state of one sequence that never left the process, and so needs no checksum.
struct LlamaState {
    std::unique_ptr<Pages> pages;
    size_t size;
};

// ------------------------------------------------------------------------------------------------------------------ save

size_t state_size(const ContextUse & use, llama_seq_id seq_id, uint32_t flags) {
    return seq_id == kWhole ? llama_state_get_size(use.get()) : llama_state_seq_get_size_ext(use.get(), seq_id, flags);
}

size_t head_size(const std::vector<llama_token> & tokens) { return sizeof(Header) + tokens.size() * sizeof(llama_token); }

// The most bytes that save() writes. Refuses what llama.cpp would answer with an abort of the process.
size_t save_size(const ContextUse & use, llama_seq_id seq_id, const std::vector<llama_token> & tokens, uint32_t flags) {
    if (seq_id == kWhole && llama_n_rs_seq(use.get()) > 0) {
        throw nb::value_error("the state of a context with n_rs_seq > 0 can be saved only sequence by sequence");
    }
    return head_size(tokens) + state_size(use, seq_id, flags);
}

uint64_t checksum_of(const uint8_t * bytes, size_t size) { return checksum(bytes + sizeof(Header), size - sizeof(Header)); }

// Writes at most `capacity` bytes; returns how many.
size_t save(const ContextUse & use, llama_seq_id seq_id, const std::vector<llama_token> & tokens, uint32_t flags,
            uint8_t * bytes, size_t capacity, bool with_checksum = true) {
    const size_t head = head_size(tokens);
    if (!tokens.empty()) {
        std::memcpy(bytes + sizeof(Header), tokens.data(), tokens.size() * sizeof(llama_token));
    }
    const size_t size = capacity - head;
    const size_t written = seq_id == kWhole ? llama_state_get_data(use.get(), bytes + head, size)
                                            : llama_state_seq_get_data_ext(use.get(), bytes + head, size, seq_id, flags);
    if (written == 0 || written > size) {
        throw std::runtime_error("cannot save the state: " + logged_errors("llama.cpp gave no reason"));
    }
    const Header header{kMagic,
                        kVersion,
                        kind_of(seq_id, flags),
                        static_cast<uint32_t>(tokens.size()),
                        fingerprint(*use->model, llama_get_model(use.get())),
                        written,
                        with_checksum ? checksum_of(bytes, head + written) : 0};
    std::memcpy(bytes, &header, sizeof header);
    return head + written;
}

nb::bytes get_data(const LlamaContext & self, llama_seq_id seq_id, uint32_t flags) {
    ContextUse use(self);
    kind_of(seq_id, flags); // refuses unknown flags
    clear_logged_errors();
    const size_t capacity = save_size(use, seq_id, {}, flags);
    // Written in place: a state can be large, and a copy of it would cost as much as the state itself.
    PyObject * bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(capacity));
    if (!bytes) {
        throw nb::python_error();
    }
    nb::bytes result = nb::steal<nb::bytes>(bytes);
    size_t size = 0;
    {
        WithoutGil release;
        size = save(use, seq_id, {}, flags, reinterpret_cast<uint8_t *>(PyBytes_AS_STRING(bytes)), capacity);
    }
    if (size < capacity) {
        return nb::bytes(result.c_str(), size);
    }
    return result;
}

LlamaState copy_sequence(const LlamaContext & self, llama_seq_id seq_id, uint32_t flags) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    kind_of(seq_id, flags); // refuses unknown flags
    clear_logged_errors();
    WithoutGil release;
    auto pages = std::make_unique<Pages>(save_size(use, seq_id, {}, flags));
    const size_t size = save(use, seq_id, {}, flags, pages->data(), pages->size(), false);
    return {std::move(pages), size};
}

nb::bytes to_bytes(const LlamaState & self) {
    nb::bytes result(self.pages->data(), self.size);
    auto * bytes = reinterpret_cast<uint8_t *>(PyBytes_AS_STRING(result.ptr()));
    const uint64_t sum = checksum_of(bytes, self.size);
    std::memcpy(bytes + offsetof(Header, checksum), &sum, sizeof sum);
    return result;
}

// Waits until the content of a file is on its disk; returns 0 if it is.
int sync(FILE * file) {
#ifdef _WIN32
    return _commit(_fileno(file));
#else
    return fsync(fileno(file));
#endif
}

// Returns 0 or an errno. A new file takes the place of an old one only when it is complete.
int write_file(const std::string & path, const uint8_t * bytes, size_t size) {
    if (const int error = check_regular(path)) {
        return error;
    }
    std::string partial; // a name of its own: others may be writing the same file
    FILE * file = nullptr;
    do {
        static std::atomic<unsigned> counter{0};
        partial = path + "." + std::to_string(current_process()) + "-" + std::to_string(++counter) + ".partial";
        file = std::fopen(partial.c_str(), "wbx");
    } while (!file && errno == EEXIST); // left by a process that was killed
    if (!file) {
        return errno;
    }
    const bool written = std::fwrite(bytes, 1, size, file) == size && std::fflush(file) == 0 && sync(file) == 0;
    int error = written ? 0 : errno;
    if (std::fclose(file) != 0 && !error) {
        error = errno;
    }
    if (!error && std::rename(partial.c_str(), path.c_str()) != 0) {
        error = errno;
    }
    if (error) {
        std::remove(partial.c_str());
    }
    return error;
}

void save_file(const LlamaContext & self, const std::string & path, llama_seq_id seq_id,
               const std::vector<llama_token> & tokens) {
    ContextUse use(self);
    clear_logged_errors();
    int error = 0;
    {
        WithoutGil release;
        std::vector<uint8_t> bytes(save_size(use, seq_id, tokens, 0));
        error = write_file(path, bytes.data(), save(use, seq_id, tokens, 0, bytes.data(), bytes.size()));
    }
    if (error) {
        raise_os_error(path, error);
    }
}

// --------------------------------------------------------------------------------------------------------------- restore

[[noreturn]] void refuse(const std::string & why) { throw nb::value_error(("not a usable state: " + why).c_str()); }

Header check(const ContextUse & use, const uint8_t * data, size_t size, llama_seq_id seq_id, uint32_t flags, bool trusted) {
    const uint32_t kind = kind_of(seq_id, flags);
    Header header;
    if (size < sizeof header) {
        refuse("it has " + std::to_string(size) + " bytes, fewer than a header");
    }
    std::memcpy(&header, data, sizeof header);
    if (header.magic != kMagic) {
        refuse("it was not saved by this library");
    }
    if (header.version != kVersion) {
        refuse("it has version " + std::to_string(header.version) + ", but this library reads version " +
               std::to_string(kVersion));
    }
    if (header.kind != kind) {
        refuse(header.kind == 0 ? "it holds a whole context: use the state_ methods"
               : kind == 0      ? "it holds one sequence: use the state_seq_ methods"
                                : "it was saved with other flags");
    }
    const size_t rest = size - sizeof header;
    if (header.n_tokens > rest / sizeof(llama_token) || header.size != rest - header.n_tokens * sizeof(llama_token)) {
        refuse("it is truncated");
    }
    if (!trusted && header.checksum != checksum_of(data, size)) {
        refuse("its checksum is wrong: it is damaged");
    }
    if (header.model != fingerprint(*use->model, llama_get_model(use.get()))) {
        refuse("it was saved with another model");
    }
    return header;
}

std::vector<llama_token> restore(const ContextUse & use, const uint8_t * data, size_t size, llama_seq_id seq_id,
                                 uint32_t flags, bool trusted = false) {
    if (seq_id != kWhole) {
        use.check_sequence(seq_id);
    }
    const Header header = check(use, data, size, seq_id, flags, trusted);
    std::vector<llama_token> tokens(header.n_tokens);
    if (!tokens.empty()) {
        std::memcpy(tokens.data(), data + sizeof header, tokens.size() * sizeof(llama_token));
    }
    const uint8_t * state = data + sizeof header + tokens.size() * sizeof(llama_token);
    use->outputs.clear();
    // llama.cpp skips what is empty in the state, and so would leave in place what it is to replace.
    if (llama_memory_t memory = llama_get_memory(use.get()); memory && seq_id == kWhole) {
        llama_memory_clear(memory, false);
    } else if (memory && !(flags & LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)) {
        llama_memory_seq_rm(memory, seq_id, -1, -1);
    }
    const size_t read = seq_id == kWhole ? llama_state_set_data(use.get(), state, header.size)
                                         : llama_state_seq_set_data_ext(use.get(), state, header.size, seq_id, flags);
    if (read == 0) {
        throw std::runtime_error(
            "cannot restore the state: " +
            logged_errors("it does not fit this context (n_ctx, n_seq_max, kv_unified, type_k, type_v)"));
    }
    return tokens;
}

void set_data(const LlamaContext & self, nb::bytes data, llama_seq_id seq_id, uint32_t flags) {
    ContextUse use(self);
    clear_logged_errors();
    const auto * bytes = static_cast<const uint8_t *>(data.data());
    const size_t size = data.size();
    WithoutGil release;
    restore(use, bytes, size, seq_id, flags);
}

void restore_copy(const LlamaContext & self, const LlamaState & state, llama_seq_id seq_id, uint32_t flags) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    clear_logged_errors();
    WithoutGil release;
    restore(use, state.pages->data(), state.size, seq_id, flags, true);
}

int read_file(const std::string & path, std::vector<uint8_t> & bytes) {
    if (const int error = check_regular(path)) {
        return error;
    }
    FILE * file = std::fopen(path.c_str(), "rb");
    if (!file) {
        return errno;
    }
    uint8_t buffer[1 << 16];
    size_t n = 0;
    errno = 0;
    while ((n = std::fread(buffer, 1, sizeof buffer, file)) > 0) {
        bytes.insert(bytes.end(), buffer, buffer + n);
    }
    const int error = std::ferror(file) ? errno : 0;
    std::fclose(file);
    return error;
}

std::vector<llama_token> load_file(const LlamaContext & self, const std::string & path, llama_seq_id seq_id) {
    ContextUse use(self);
    clear_logged_errors();
    std::vector<llama_token> tokens;
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

constexpr const char * kRefusals =
    "\n\nRaises ValueError for what is damaged or was saved with another model, RuntimeError for what does not fit this "
    "context; what it was to replace is gone then.";

} // namespace

void init_state(nb::module_ & m, nb::class_<LlamaContext> & context) {
    nb::class_<LlamaState>(m, "LlamaState",
                           "The state of one sequence, in memory of its own that is given back at once.\n\n"
                           ">>> state = context.state_seq_copy(0)\n"
                           ">>> context.state_seq_set_data(state, 1)\n"
                           ">>> context.state_seq_set_data(bytes(state), 2)")
        .def(
            "__len__", [](const LlamaState & self) { return self.size; }, "Bytes that it takes.")
        .def("__bytes__", &to_bytes, "The same as LlamaContext.state_seq_get_data.");
    const std::string refusals = kRefusals;
    context
        .def(
            "state_get_data", [](const LlamaContext & self) { return get_data(self, kWhole, 0); },
            "The state of all sequences, as bytes for state_set_data.")
        .def(
            "state_set_data", [](const LlamaContext & self, nb::bytes data) { set_data(self, std::move(data), kWhole, 0); },
            nb::arg("data"), ("Restore what state_get_data returned." + refusals).c_str())
        .def(
            "state_save_file",
            [](const LlamaContext & self, nb::object path, const std::vector<llama_token> & tokens) {
                save_file(self, to_path(path), kWhole, tokens);
            },
            nb::arg("path"), nb::arg("tokens") = std::vector<llama_token>(),
            nb::sig(
                "def state_save_file(self, path: str | os.PathLike[str], tokens: collections.abc.Sequence[int] = []) -> None"),
            "Save the state of all sequences, and token ids of your choice beside it. The file is complete or absent.")
        .def(
            "state_load_file",
            [](const LlamaContext & self, nb::object path) { return load_file(self, to_path(path), kWhole); },
            nb::arg("path"), nb::sig("def state_load_file(self, path: str | os.PathLike[str]) -> list[int]"),
            ("Restore what state_save_file saved. Returns the token ids." + refusals).c_str())
        .def(
            "state_seq_get_data",
            [](const LlamaContext & self, llama_seq_id seq_id, uint32_t flags) {
                ContextUse(self).check_sequence(seq_id);
                return get_data(self, seq_id, flags);
            },
            nb::arg("seq_id"), nb::arg("flags") = 0,
            "The state of one sequence, as bytes for state_seq_set_data.\n\n"
            "`flags` may be LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: only what cannot be rolled back (recurrent states,\n"
            "sliding windows).")
        .def("state_seq_copy", &copy_sequence, nb::arg("seq_id"), nb::arg("flags") = 0,
             "The state of one sequence, for state_seq_set_data in this process: faster than as bytes.")
        .def("state_seq_set_data", &restore_copy, nb::arg("data"), nb::arg("seq_id"), nb::arg("flags") = 0)
        .def(
            "state_seq_set_data",
            [](const LlamaContext & self, nb::bytes data, llama_seq_id seq_id, uint32_t flags) {
                ContextUse(self).check_sequence(seq_id);
                set_data(self, std::move(data), seq_id, flags);
            },
            nb::arg("data"), nb::arg("seq_id"), nb::arg("flags") = 0,
            ("Replace a sequence by what state_seq_get_data returned, with the same flags." + refusals).c_str())
        .def(
            "state_seq_save_file",
            [](const LlamaContext & self, nb::object path, llama_seq_id seq_id, const std::vector<llama_token> & tokens) {
                ContextUse(self).check_sequence(seq_id);
                save_file(self, to_path(path), seq_id, tokens);
            },
            nb::arg("path"), nb::arg("seq_id"), nb::arg("tokens") = std::vector<llama_token>(),
            nb::sig("def state_seq_save_file(self, path: str | os.PathLike[str], seq_id: int, "
                    "tokens: collections.abc.Sequence[int] = []) -> None"),
            "Save one sequence, and its token ids beside it. The file is complete or absent.")
        .def(
            "state_seq_load_file",
            [](const LlamaContext & self, nb::object path, llama_seq_id seq_id) {
                ContextUse(self).check_sequence(seq_id);
                return load_file(self, to_path(path), seq_id);
            },
            nb::arg("path"), nb::arg("seq_id"),
            nb::sig("def state_seq_load_file(self, path: str | os.PathLike[str], seq_id: int) -> list[int]"),
            ("Replace a sequence by what state_seq_save_file saved. Returns the token ids." + refusals).c_str());
}
