#include "projector.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <stdexcept>
#include <variant>

#include "backend.hpp"
#include "conversion.hpp"
#include "errors.hpp"
#include "files.hpp"
#include "guard.hpp"
#include "huge_pages.hpp"
#include "modules.hpp"
#include "projector_file.hpp"

ProjectorHandle::ProjectorHandle(std::shared_ptr<ModelHandle> model, ProjectorPtr context, std::string path)
    : model(std::move(model)), path(std::move(path)), n_embd(0),
      non_causal(mtmd_decode_use_non_causal(context.get(), nullptr)), context_(std::move(context)) {}

ProjectorHandle::~ProjectorHandle() {
    if (forked()) { // a child has none of the threads that freeing would wait for
        new ProjectorPtr(std::move(context_));
    }
}

void ProjectorHandle::free() {
    std::lock_guard<std::mutex> lock(context_mutex_);
    context_.reset();
}

ProjectorPtr ProjectorHandle::get() {
    std::lock_guard<std::mutex> lock(context_mutex_);
    return context_ ? context_ : throw std::runtime_error("the projector is closed");
}

namespace {

constexpr const char * kMarker = "<image>"; // the whole text that mtmd gets, so that no other text can be taken for it
constexpr uint32_t kMostPixels = 1 << 26, kMostRatio = 200;

// -------------------- loading

// Throws unless the model has the tokens that the projector puts around images. Any image shows that.
void check_tokens(mtmd_context * context, int32_t n_vocab);

mtmd_context_params params_of(bool use_gpu) {
    mtmd_context_params params = mtmd_context_params_default();
    params.use_gpu = use_gpu;
    params.print_timings = false;
    params.media_marker = kMarker;
    return params;
}

ProjectorPtr load(const ModelUse & model, const std::string & path, int32_t n_threads, bool use_gpu) {
    const std::string problem = problem_of_projector(path);
    if (!problem.empty()) {
        throw std::runtime_error(problem);
    }
    mtmd_context_params params = params_of(use_gpu);
    params.n_threads = n_threads;
    params.warmup = false;
    clear_logged_errors();
    ProjectorPtr context(mtmd_init_from_file(path.c_str(), model.get(), params), mtmd_free);
    cyllama_enlarge_pages();
    if (!context) {
        throw std::runtime_error(logged_errors("llama.cpp gave no reason"));
    }
    if (mtmd_decode_use_mrope(context.get())) {
        throw std::runtime_error("the model has positions of several dimensions (M-RoPE): images are not supported for it");
    }
    check_tokens(context.get(), model.n_vocab());
    return context;
}

std::shared_ptr<ProjectorHandle> load_projector(const std::shared_ptr<ModelHandle> & model_handle, const std::string & path,
                                                int32_t n_threads, bool use_gpu) {
    if (native_holds) {
        throw std::runtime_error("a projector cannot be loaded while this thread computes: not from a callback");
    }
    check_range("n_threads", n_threads, 1, 512);
    LogDelivery delivery;
    check_gguf(path);
    refresh_log_level();
    ModelUse model(model_handle);
    if (model_handle->forked()) {
        throw std::runtime_error("this model was loaded before os.fork(): load it in this process to load a projector");
    }
    if (!model_handle->has_weights) {
        throw std::runtime_error("the model was loaded without its weights (vocab_only or no_alloc): it has no projectors");
    }
    model.check_vocab();
    std::string problem;
    ProjectorPtr context;
    {
        WithoutGil release;
        try {
            context = load(model, path, n_threads, use_gpu);
        } catch (const std::exception & error) {
            problem = error.what();
        }
    }
    if (!context) {
        raise(ErrorType::kRuntime, "cannot load the projector " + path + ": " + problem);
    }
    auto handle = std::make_shared<ProjectorHandle>(model_handle, std::move(context), path);
    handle->n_embd = llama_model_n_embd_inp(model.get());
    model_handle->add_context(handle);
    return handle;
}

std::map<std::string, size_t> projector_memory(const nb::object & file, bool use_gpu) {
    static std::mutex measuring; // mtmd, where it is not edited, replaces the callback of its log for all threads meanwhile
    const std::string path = to_path(file);
    LogDelivery delivery;
    check_gguf(path);
    refresh_log_level();
    check_gpus_after_fork();
    std::string problem;
    std::map<std::string, size_t> result;
    {
        WithoutGil release;
        ProbeLog quiet;
        problem = problem_of_projector(path);
        if (problem.empty()) {
            const std::lock_guard<std::mutex> lock(measuring);
            clear_logged_errors();
            for (const auto & [device, bytes] : mtmd_get_memory_usage(path.c_str(), params_of(use_gpu))) {
                result[ggml_backend_dev_name(device)] += bytes;
            }
            problem = result.empty() ? logged_errors("llama.cpp gave no reason") : "";
        }
    }
    if (!problem.empty()) {
        const bool no_memory = problem.find("no memory for") != std::string::npos; // as edits of mtmd say
        raise(no_memory ? ErrorType::kMemory : ErrorType::kRuntime,
              "cannot tell the memory of the projector " + path + ": " + problem);
    }
    return result;
}

// -------------------- images

ImageChunksPtr tokenize(mtmd_context * context, const unsigned char * rgb, uint32_t width, uint32_t height) {
    ImageChunksPtr chunks(mtmd_input_chunks_init(), mtmd_input_chunks_free);
    const mtmd::bitmap bitmap(width, height, rgb);
    const mtmd_bitmap * bitmaps[] = {bitmap.ptr.get()};
    const mtmd_input_text text{kMarker, std::char_traits<char>::length(kMarker), false, true};
    clear_logged_errors();
    if (mtmd_tokenize(context, chunks.get(), &text, bitmaps, 1) != 0) {
        throw std::runtime_error("the image cannot be prepared: " + logged_errors("llama.cpp gave no reason"));
    }
    return chunks;
}

// Calls a function with each chunk of an image.
template <class Function> void for_each(const mtmd_input_chunks * chunks, Function && function) {
    for (size_t i = 0; i < mtmd_input_chunks_size(chunks); ++i) {
        function(mtmd_input_chunks_get(chunks, i));
    }
}

bool is_image(const mtmd_input_chunk * chunk) { return mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_IMAGE; }

std::vector<llama_token> text_tokens(const mtmd_input_chunk * chunk) {
    size_t n = 0;
    const llama_token * tokens = mtmd_input_chunk_get_tokens_text(chunk, &n);
    return std::vector<llama_token>(tokens, tokens + n);
}

void check_tokens(mtmd_context * context, int32_t n_vocab) {
    constexpr uint32_t kSize = 64;
    const std::vector<unsigned char> rgb(size_t{3} * kSize * kSize);
    const ImageChunksPtr chunks = tokenize(context, rgb.data(), kSize, kSize);
    for_each(chunks.get(), [&](const mtmd_input_chunk * chunk) {
        if (is_image(chunk)) {
            return;
        }
        for (const llama_token token : text_tokens(chunk)) {
            if (token < 0 || token >= n_vocab) {
                throw std::runtime_error("the model has no token for the beginning or the end of an image: the projector "
                                         "was made for another one");
            }
        }
    });
}

void check_image(const nb::bytes & rgb, uint32_t width, uint32_t height) {
    const uint64_t n_pixels = uint64_t{width} * height;
    if (n_pixels == 0 || n_pixels > kMostPixels || std::max(width, height) / std::min(width, height) > kMostRatio) {
        throw_value_error("an image has 1 to " + std::to_string(kMostPixels) + " pixels, and no side is more than " +
                          std::to_string(kMostRatio) + " times the other: not " + std::to_string(width) + " x " +
                          std::to_string(height));
    }
    if (rgb.size() != 3 * n_pixels) {
        throw_value_error("an image of " + std::to_string(width) + " x " + std::to_string(height) + " pixels has " +
                          std::to_string(3 * n_pixels) + " bytes, not " + std::to_string(rgb.size()));
    }
}

LlamaImage prepare(const LlamaProjector & self, const nb::bytes & rgb, uint32_t width, uint32_t height) {
    LogDelivery delivery;
    check_image(rgb, width, height);
    const ModelUse model(self.handle->model);
    if (self.handle->forked()) {
        self.handle->check_lockable("projector"); // which throws
    }
    const ProjectorPtr context = self.handle->get();
    const auto * data = static_cast<const unsigned char *>(rgb.data());
    WithoutGil release;
    ImageChunksPtr chunks = tokenize(context.get(), data, width, height);
    size_t n_tokens = 0;
    for_each(chunks.get(), [&](const mtmd_input_chunk * chunk) {
        n_tokens += is_image(chunk) ? mtmd_input_chunk_get_n_tokens(chunk) : 0;
    });
    return LlamaImage{self.handle, std::move(chunks), n_tokens};
}

std::vector<std::variant<std::vector<llama_token>, size_t>> parts(const LlamaImage & self) {
    std::vector<std::variant<std::vector<llama_token>, size_t>> result;
    for_each(self.chunks.get(), [&](const mtmd_input_chunk * chunk) {
        if (is_image(chunk)) {
            result.emplace_back(mtmd_input_chunk_get_n_tokens(chunk));
        } else {
            result.emplace_back(text_tokens(chunk));
        }
    });
    return result;
}

// -------------------- embeddings

void append_embeddings(mtmd_context * context, const mtmd_input_chunk * chunk, int32_t n_embd,
                       std::vector<float> & values) {
    clear_logged_errors();
    if (mtmd_encode_chunk(context, chunk) != 0) {
        throw std::runtime_error("the image cannot be encoded: " + logged_errors("llama.cpp gave no reason"));
    }
    const float * first = mtmd_get_output_embd(context);
    const float * last = first + mtmd_input_chunk_get_n_tokens(chunk) * static_cast<size_t>(n_embd);
    // A NaN would spread to all that the KV cache holds.
    if (!std::all_of(first, last, [](float value) { return std::isfinite(value); })) {
        throw std::runtime_error("the image has embeddings that are not finite numbers: the projector is damaged");
    }
    values.insert(values.end(), first, last);
}

LlamaEmbeddings encode(const LlamaProjector & self, const LlamaImage & image) {
    if (image.projector != self.handle) {
        throw_value_error("the image was prepared by another projector");
    }
    const Guard guard(*self.handle, "projector");
    const ProjectorPtr context = self.handle->get();
    const int32_t n_embd = self.handle->n_embd;
    auto values = std::make_shared<std::vector<float>>();
    WithoutGil release;
    values->reserve(image.n_tokens * static_cast<size_t>(n_embd));
    for_each(image.chunks.get(), [&](const mtmd_input_chunk * chunk) {
        if (is_image(chunk)) {
            append_embeddings(context.get(), chunk, n_embd, *values);
        }
    });
    return LlamaEmbeddings{std::move(values), n_embd, static_cast<int32_t>(image.n_tokens)};
}

nb::str repr(const LlamaProjector & self) {
    return nb::str("<LlamaProjector from {}>").format(path_to_str(self.handle->path));
}

void init_image(nb::module_ & m) {
    nb::class_<LlamaImage>(m, "LlamaImage",
                           "An image as a projector has prepared it (mtmd_input_chunks). It never changes.")
        .def_prop_ro("parts", &parts, R"doc(
            What it is in a prompt, in order: lists of token ids, and numbers of tokens that are embeddings.

            The tokens of one number belong together: where a projector is `non_causal`, they are evaluated in one batch.
            )doc")
        .def_prop_ro("n_tokens", [](const LlamaImage & self) { return self.n_tokens; }, "How many embeddings it becomes.");
    nb::class_<LlamaEmbeddings>(m, "LlamaEmbeddings", "Embeddings of an image, for LlamaBatch.add_embeddings().")
        .def(
            "__len__", [](const LlamaEmbeddings & self) { return self.n_tokens; }, "How many tokens they are.")
        .def_prop_ro(
            "n_embd", [](const LlamaEmbeddings & self) { return self.n_embd; }, "Numbers of each token.")
        .def_prop_ro(
            "nbytes", [](const LlamaEmbeddings & self) { return self.values->size() * sizeof(float); },
            "Bytes of memory that they take.");
}

} // namespace

// Long: a list of bindings.
void init_projector(nb::module_ & m) {
    init_image(m);
    nb::class_<LlamaProjector>(m, "LlamaProjector", R"doc(
        Makes embeddings of a model from images (mtmd_context). It keeps the model in memory.

        >>> projector = LlamaProjector(model, "mmproj.gguf")
        >>> embeddings = projector.encode(projector.prepare(rgb, width, height))
        )doc")
        .def(
            "__init__",
            [](LlamaProjector * self, const LlamaModel & model, nb::object path, int32_t n_threads, bool use_gpu) {
                new (self) LlamaProjector{load_projector(model.handle, to_path(path), n_threads, use_gpu)};
            },
            nb::arg("model"), nb::arg("path"), nb::arg("n_threads") = 4, nb::arg("use_gpu") = true,
            nb::sig("def __init__(self, model: LlamaModel, path: str | os.PathLike[str], n_threads: int = 4, "
                    "use_gpu: bool = True) -> None"),
            R"doc(
            Load a GGUF file (mtmd_init_from_file). The GIL is released meanwhile.

            Args:
                model: The model that the projector was made for.
                path: The file, which is often called mmproj.
                n_threads: Threads that encode an image on the CPU, from 1 to 512.
                use_gpu: Encode on a GPU, if there is one.

            Raises:
                OSError: The file cannot be read: FileNotFoundError, IsADirectoryError, PermissionError.
                ValueError: The file is not GGUF, or `n_threads` is out of range.
                RuntimeError: The file is not a projector of images, is damaged, or was made for another model; or the
                    model has positions of several dimensions (M-RoPE).
            )doc")
        .def("prepare", &prepare, nb::arg("rgb"), nb::arg("width"), nb::arg("height"), R"doc(
            Resize an image, and cut it into slices, as the model wants it (mtmd_tokenize).

            The GIL is released meanwhile. Any number of threads may do so at once, also while another one encodes.

            Args:
                rgb: Three bytes for each pixel, row by row from the top: red, green, blue.
                width, height: In pixels: at most 2**26 pixels, and no side more than 200 times the other.

            Raises:
                ValueError: The size is out of range, or not that of `rgb`.
                RuntimeError: The projector cannot prepare the image.
            )doc")
        .def("encode", &encode, nb::arg("image"), R"doc(
            Compute the embeddings of an image (mtmd_encode_chunk). The GIL is released meanwhile.

            Args:
                image: What prepare() returned.

            Raises:
                ValueError: Another projector has prepared the image.
                RuntimeError: The computation failed, or its results are not finite numbers.
            )doc")
        .def_prop_ro(
            "non_causal", [](const LlamaProjector & self) { return self.handle->non_causal; },
            "Whether the tokens of an image attend to each other in both directions.")
        .def_prop_ro(
            "path", [](const LlamaProjector & self) { return path_to_str(self.handle->path); }, "The file.")
        .def_prop_ro(
            "n_embd", [](const LlamaProjector & self) { return self.handle->n_embd; }, "Numbers of an embedding.")
        .def("__repr__", &repr);
    m.def("projector_memory", &projector_memory, nb::arg("path"), nb::kw_only(), nb::arg("use_gpu"),
          nb::sig("def projector_memory(path: str | os.PathLike[str], *, use_gpu: bool) -> dict[str, int]"), R"doc(
        Return the bytes that a projector takes by device: its tensors, and what it computes a large image with.

        llama.cpp tells (mtmd_get_memory_usage), which takes that memory for a moment. Nothing is read but the header of the
        file. The GIL is released meanwhile.

        Args:
            path: The file.
            use_gpu: Whether it is to encode on a GPU, if there is one.

        Raises:
            OSError: The file cannot be read: FileNotFoundError, IsADirectoryError, PermissionError.
            ValueError: The file is not GGUF.
            MemoryError: The device has less.
            RuntimeError: It is not a projector of images, or is damaged.
        )doc");
}
