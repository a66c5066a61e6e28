#include "model.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include "backend.hpp"
#include "context.hpp"
#include "guard.hpp"
#include "model_internals.hpp"
#include "modules.hpp"
#include "params.hpp"
#include "token_trie.hpp"

// ---------------------------------------------------------------------------------------------------------------- handle

ModelHandle::~ModelHandle() {
    delete trie.load();
    if (!forked()) {
        llama_model_free(model_);
    }
}

void ModelHandle::add_context(const std::shared_ptr<ContextHandle> & context) {
    if (forked()) {
        return;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::weak_ptr<ContextHandle>> alive;
    for (auto & other : contexts_) {
        if (!other.expired()) {
            alive.push_back(other);
        }
    }
    alive.push_back(context);
    contexts_ = std::move(alive);
}

bool ModelHandle::closed() { return closed_; }

void ModelHandle::close() {
    if (forked()) { // the memory is the parent's to free
        closed_ = true;
        return;
    }
    if (native_holds) {
        throw std::runtime_error("a model cannot be closed while this thread computes: not from a callback");
    }
    std::lock_guard<std::mutex> one_at_a_time(close_mutex_);
    std::vector<std::weak_ptr<ContextHandle>> contexts;
    {
        std::unique_lock<std::mutex> lock(mutex_);
        closed_ = true;
        unused_.wait(lock, [this] { return users_ == 0; }); // from here on nobody adds a context
        contexts.swap(contexts_);
    }
    for (auto & weak : contexts) {
        if (auto context = weak.lock(); context && !context->forked()) {
            context->lock("context");
            context->free();
            context->unlock();
        }
    }
    std::lock_guard<std::mutex> lock(mutex_);
    adapters.forget(); // the model frees them
    llama_model_free(model_);
    model_ = nullptr;
}

ModelUse::ModelUse(std::shared_ptr<ModelHandle> handle) : handle_(std::move(handle)) {
    std::unique_lock<std::mutex> lock(handle_->mutex_, std::defer_lock);
    if (!handle_->forked()) {
        lock.lock();
    }
    if (handle_->closed_) {
        throw std::runtime_error("the model is closed");
    }
    ++handle_->users_;
    ++native_holds;
}

ModelUse::~ModelUse() {
    --native_holds;
    if (handle_->forked()) {
        return;
    }
    std::lock_guard<std::mutex> lock(handle_->mutex_);
    if (--handle_->users_ == 0) {
        handle_->unused_.notify_all();
    }
}

void ModelUse::check_vocab() const {
    if (llama_vocab_type(vocab()) == LLAMA_VOCAB_TYPE_NONE) {
        throw std::runtime_error("the model has no vocabulary of text");
    }
}

void ModelUse::check_token(llama_token token) const {
    check_vocab();
    if (token < 0 || token >= n_vocab()) {
        throw nb::value_error(("token id " + std::to_string(token) + " is out of range: the vocabulary has ids 0 to " +
                               std::to_string(n_vocab() - 1))
                                  .c_str());
    }
}

nb::str to_str(const std::string & text) {
    return nb::steal<nb::str>(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

std::string valid_utf8(const std::string & text) {
    std::string result;
    for (size_t i = 0; i < text.size();) {
        const auto lead = static_cast<unsigned char>(text[i]);
        const size_t size = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
        bool valid = size > 0 && i + size <= text.size();
        for (size_t k = 1; valid && k < size; ++k) {
            const auto byte = static_cast<unsigned char>(text[i + k]);
            valid = (byte & 0xC0) == 0x80 && (k > 1 || !utf8::is_invalid_after(lead, byte));
        }
        result += valid ? text.substr(i, size) : "\xEF\xBF\xBD";
        i += valid ? size : 1;
    }
    return result;
}

void init_exceptions() {
    nb::register_exception_translator([](const std::exception_ptr & thrown, void *) {
        try {
            std::rethrow_exception(thrown);
        } catch (const std::exception & error) {
            const std::string text = error.what(), valid = valid_utf8(text);
            if (text == valid) {
                throw; // to nanobind, which knows types of exceptions
            }
            PyErr_SetString(PyExc_RuntimeError, valid.c_str());
        }
    });
}

void raise(PyObject * type, const std::string & message) {
    PyErr_SetObject(type, to_str(message).ptr());
    throw nb::python_error();
}

// ----------------------------------------------------------------------------------------------------------------- paths

std::string to_path(nb::handle path) {
    PyObject * bytes = nullptr;
    if (!PyUnicode_FSConverter(path.ptr(), &bytes)) {
        throw nb::python_error();
    }
    const nb::bytes owned = nb::steal<nb::bytes>(bytes);
    return std::string(owned.c_str(), owned.size());
}

void raise_os_error(const std::string & path, int error) {
    errno = error;
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    throw nb::python_error();
}

int check_regular(const std::string & path) {
    std::error_code error;
    const auto type = std::filesystem::status(path, error).type();
    if (type == std::filesystem::file_type::directory) {
        return EISDIR;
    }
    const bool fine = type == std::filesystem::file_type::regular || type == std::filesystem::file_type::not_found;
    return fine ? 0 : error ? error.value() : EINVAL;
}

void check_gguf(const std::string & path) {
    if (const int error = check_regular(path)) {
        raise_os_error(path, error);
    }
    FILE * file = std::fopen(path.c_str(), "rb");
    if (!file) {
        raise_os_error(path, errno);
    }
    char magic[4] = {};
    errno = 0;
    const size_t n = std::fread(magic, 1, sizeof magic, file);
    const int read_error = errno;
    std::fclose(file);
    if (n < sizeof magic && read_error != 0) {
        raise_os_error(path, read_error);
    }
    if (n < sizeof magic || std::memcmp(magic, "GGUF", sizeof magic) != 0) {
        raise(PyExc_ValueError, path + (n == 0 ? " is empty" : " does not start with \"GGUF\"") + ": not a GGUF file");
    }
}

// --------------------------------------------------------------------------------------------------------------- loading

namespace {

// What a load refers to while it runs.
struct Load {
    nb::object on_progress;
    std::optional<nb::python_error> error;
    std::chrono::steady_clock::time_point next_signal_check{};
};

// llama.cpp calls this on the loading thread, without the GIL, for every tensor.
bool on_progress(float progress, void * data) {
    auto & load = *static_cast<Load *>(data);
    if (must_end()) { // no lock is held here, and nobody would see the load's failure
        end_computation();
        sleep_forever();
    }
    const auto now = std::chrono::steady_clock::now();
    if (load.on_progress.is_none() && now < load.next_signal_check) {
        return true;
    }
    load.next_signal_check = now + std::chrono::milliseconds(50);
    WithGil gil;
    try {
        return call_python([&] {
            if (PyErr_CheckSignals() != 0) { // Ctrl-C during a long load
                throw nb::python_error();
            }
            return load.on_progress.is_none() || !load.on_progress(progress).is(nb::handle(Py_False));
        });
    } catch (nb::python_error & error) {
        load.error.emplace(std::move(error));
        return false;
    }
}

std::vector<ggml_backend_dev_t> find_devices(const std::vector<std::string> & names) {
    std::vector<ggml_backend_dev_t> devices;
    for (const std::string & name : names) {
        ggml_backend_dev_t device = ggml_backend_dev_by_name(name.c_str());
        if (!device) {
            throw nb::value_error(("there is no device \"" + name + "\": see devices()").c_str());
        }
        devices.push_back(device);
    }
    if (!devices.empty()) {
        devices.push_back(nullptr);
    }
    return devices;
}

ggml_backend_buffer_type_t find_buffer_type(const std::string & name) {
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(ggml_backend_dev_get(i));
        if (type && name == ggml_backend_buft_name(type)) {
            return type;
        }
    }
    throw nb::value_error(("there is no buffer type \"" + name + "\"").c_str());
}

std::vector<llama_model_kv_override> to_overrides(const std::map<std::string, MetadataValue> & values) {
    std::vector<llama_model_kv_override> overrides;
    for (const auto & [key, value] : values) {
        llama_model_kv_override item{};
        if (key.size() >= sizeof item.key) {
            throw nb::value_error(("the metadata key \"" + key + "\" is longer than 127 bytes").c_str());
        }
        std::memcpy(item.key, key.c_str(), key.size() + 1);
        if (const auto * boolean = std::get_if<bool>(&value)) {
            item.tag = LLAMA_KV_OVERRIDE_TYPE_BOOL;
            item.val_bool = *boolean;
        } else if (const auto * integer = std::get_if<int64_t>(&value)) {
            item.tag = LLAMA_KV_OVERRIDE_TYPE_INT;
            item.val_i64 = *integer;
        } else if (const auto * real = std::get_if<double>(&value)) {
            item.tag = LLAMA_KV_OVERRIDE_TYPE_FLOAT;
            item.val_f64 = *real;
        } else {
            const auto & text = std::get<std::string>(value);
            if (text.size() >= sizeof item.val_str) {
                throw nb::value_error(("the value of \"" + key + "\" is longer than 127 bytes").c_str());
            }
            item.tag = LLAMA_KV_OVERRIDE_TYPE_STR;
            std::memcpy(item.val_str, text.c_str(), text.size() + 1);
        }
        overrides.push_back(item);
    }
    if (!overrides.empty()) {
        overrides.emplace_back(); // ends with an empty key
    }
    return overrides;
}

// Whether attention is causal, which llama.cpp tells nobody.
bool is_causal(const llama_model * model, const LlamaModelParams & params) {
    char architecture[128] = {}, value[16] = {};
    llama_model_meta_val_str(model, "general.architecture", architecture, sizeof architecture);
    const std::string key = std::string(architecture) + ".attention.causal";
    if (const auto found = params.overrides.find(key); found != params.overrides.end()) {
        if (const bool * causal = std::get_if<bool>(&found->second)) {
            return *causal;
        }
    }
    if (llama_model_is_diffusion(model) || std::strcmp(architecture, "gemma-embedding") == 0) {
        return false;
    }
    return llama_model_meta_val_str(model, key.c_str(), value, sizeof value) < 0 || std::strcmp(value, "false") != 0;
}

std::shared_ptr<ModelHandle> load_model(const std::string & path, const LlamaModelParams & source) {
    constexpr size_t kMaxPattern = 1024; // std::regex recurses as deep as a pattern is long
    LogDelivery delivery;
    check_gguf(path);
    refresh_log_level();
    if (source.no_alloc && !source.vocab_only && source.load_mode != LLAMA_LOAD_MODE_NONE) {
        throw nb::value_error("no_alloc loads nothing: it needs load_mode=LlamaLoadMode.NONE");
    }

    llama_model_params params = source;
    std::vector<ggml_backend_dev_t> devices = find_devices(source.device_names);
    std::vector<llama_model_tensor_buft_override> buffers;
    for (const auto & [pattern, type] : source.buffer_overrides) {
        if (pattern.size() > kMaxPattern) {
            throw nb::value_error("a pattern of tensor_buft_overrides is longer than 1024 bytes");
        }
        buffers.push_back({pattern.c_str(), find_buffer_type(type)});
    }
    if (!buffers.empty()) {
        buffers.push_back({nullptr, nullptr});
    }
    std::vector<float> split = source.split;
    if (split.size() > llama_max_devices()) {
        throw nb::value_error(("tensor_split has " + std::to_string(split.size()) + " values, but at most " +
                               std::to_string(llama_max_devices()) + " devices are possible")
                                  .c_str());
    }
    split.resize(split.empty() ? 0 : llama_max_devices(), 0.0f);
    const std::vector<llama_model_kv_override> overrides = to_overrides(source.overrides);
    Load load{source.on_progress, std::nullopt, {}};

    params.devices = devices.empty() ? nullptr : devices.data();
    params.tensor_buft_overrides = buffers.empty() ? nullptr : buffers.data();
    params.tensor_split = split.empty() ? nullptr : split.data();
    params.kv_overrides = overrides.empty() ? nullptr : overrides.data();
    params.progress_callback = on_progress;
    params.progress_callback_user_data = &load;

    check_gpus_after_fork();
    clear_logged_errors();
    llama_model * model = nullptr;
    uint64_t weights = 0;
    {
        WithoutGil release;
        check_metadata(path, params);
        model = llama_model_load_from_file(path.c_str(), params);
        weights = model && !params.vocab_only ? hash_weights(path) : 0;
    }
    if (!model) {
        if (load.error) {
            throw std::move(*load.error);
        }
        raise(PyExc_RuntimeError, "cannot load " + path + ": " + logged_errors("stopped by progress_callback"));
    }
    auto handle = std::make_shared<ModelHandle>(model, path, weights, !source.vocab_only && !source.no_alloc,
                                                is_causal(model, source));
    check_vocabulary(llama_model_get_vocab(model));
    return handle;
}

// -------------------------------------------------------------------------------------------------------------- metadata

// A number of the model's metadata, such as "llama.attention.key_length".
double attention_number(const llama_model * model, const std::string & name, double otherwise) {
    const auto value = [&](const std::string & key) {
        return read_string(
            [&](char * buffer, size_t size) { return llama_model_meta_val_str(model, key.c_str(), buffer, size); });
    };
    const std::string text = value(value("general.architecture") + ".attention." + name);
    const double number = std::strtod(text.c_str(), nullptr);
    return number > 0 ? number : otherwise;
}

nb::dict metadata(const LlamaModel & self) {
    ModelUse model(self.handle);
    nb::dict result;
    for (int32_t i = 0; i < llama_model_meta_count(model.get()); ++i) {
        const std::string key = read_string(
            [&](char * buffer, size_t size) { return llama_model_meta_key_by_index(model.get(), i, buffer, size); });
        const std::string value = read_string(
            [&](char * buffer, size_t size) { return llama_model_meta_val_str_by_index(model.get(), i, buffer, size); });
        result[to_str(key)] = to_str(value);
    }
    return result;
}

std::optional<nb::str> chat_template(const LlamaModel & self, const std::optional<std::string> & name) {
    ModelUse model(self.handle);
    const char * text = llama_model_chat_template(model.get(), name ? name->c_str() : nullptr);
    return text ? std::optional<nb::str>(to_str(text)) : std::nullopt;
}

// A property or method that reads one value of the model.
template <auto function> auto read() {
    return [](const LlamaModel & self) { return function(ModelUse(self.handle).get()); };
}

// The same for what llama.cpp reads from the first layer, which vocab_only does not load.
template <auto function> auto read_layer() {
    return [](const LlamaModel & self) {
        ModelUse model(self.handle);
        return llama_model_n_layer(model.get()) > 0 ? function(model.get()) : 0;
    };
}

} // namespace

std::optional<int64_t> kv_cache_bytes(const llama_model * model, int64_t n_ctx, enum ggml_type type_k,
                                      enum ggml_type type_v) {
    const int32_t n_head = llama_model_n_head(model);
    if (llama_model_n_swa(model) != 0 || llama_model_is_recurrent(model) || llama_model_is_hybrid(model) ||
        !llama_model_has_decoder(model) || n_head <= 0) {
        return std::nullopt;
    }
    const double head = llama_model_n_embd(model) / n_head;
    const double key = attention_number(model, "key_length", head) * ggml_type_size(type_k) / ggml_blck_size(type_k);
    const double value = attention_number(model, "value_length", head) * ggml_type_size(type_v) / ggml_blck_size(type_v);
    const double bytes =
        static_cast<double>(n_ctx) * llama_model_n_layer(model) * llama_model_n_head_kv(model) * (key + value);
    return bytes < 0x1p63 ? static_cast<int64_t>(bytes) : INT64_MAX;
}

void init_model(nb::module_ & m) {
    nb::class_<LlamaModel>(m, "LlamaModel",
                           "A loaded GGUF model (llama_model). Contexts created from it keep it in memory.\n\n"
                           "Usable from any number of threads, and as a context manager that closes it.\n\n"
                           ">>> with LlamaModel(\"model.gguf\") as model:\n"
                           "...     print(model.desc, model.n_params)")
        .def(
            "__init__",
            [](LlamaModel * self, nb::object path, const LlamaModelParams * params) {
                new (self) LlamaModel{load_model(to_path(path), params ? *params : LlamaModelParams())};
            },
            nb::arg("path"), nb::arg("params") = nb::none(),
            nb::sig("def __init__(self, path: str | os.PathLike[str], params: LlamaModelParams | None = None) -> None"),
            "Load the GGUF file at `path`. The GIL is released meanwhile, and Ctrl-C stops the load.\n\n"
            "Raises FileNotFoundError, IsADirectoryError or PermissionError as open() does, ValueError if it is no GGUF\n"
            "file or a parameter is out of range, RuntimeError with llama.cpp's reason if it cannot be loaded.")
        .def(
            "close",
            [](LlamaModel & self) {
                LogDelivery delivery;
                if (!self.handle->closed()) {
                    WithoutGil release(false); // mostly waits
                    self.handle->close();
                }
            },
            "Free the model and every context created from it, at once. Waits for computations in other threads. Closing a\n"
            "closed model does nothing; every other use raises RuntimeError.")
        .def_prop_ro(
            "closed", [](const LlamaModel & self) { return self.handle->closed(); }, "Whether close() was called.")
        .def(
            "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> LlamaModel"))
        .def(
            "__exit__", [](nb::object self, nb::args) { self.attr("close")(); },
            nb::sig("def __exit__(self, *args: object) -> None"))
        .def_prop_ro(
            "path",
            [](const LlamaModel & self) {
                const std::string & path = self.handle->path();
                return nb::steal<nb::str>(
                    PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size())));
            },
            "The file it was loaded from.")
        .def_prop_ro(
            "vocab", [](const LlamaModel & self) { return LlamaVocab{self.handle}; }, "The vocabulary.")
        .def_prop_ro("metadata", &metadata, nb::sig("def metadata(self) -> dict[str, str]"),
                     "The file's metadata, arrays left out.")
        .def("chat_template", &chat_template, nb::arg("name") = nb::none(),
             "The chat template of that name (None for the default one) as Jinja source, or None.")
        .def_prop_ro(
            "desc",
            [](const LlamaModel & self) {
                ModelUse model(self.handle);
                return to_str(
                    read_string([&](char * buffer, size_t size) { return llama_model_desc(model.get(), buffer, size); }));
            },
            "Architecture, size and quantization, such as \"llama 1B Q4_0\".")
        .def_prop_ro(
            "ftype",
            [](const LlamaModel & self) { return llama_ftype_name(llama_model_ftype(ModelUse(self.handle).get())); },
            "Quantization, such as \"Q4_0\".")
        .def(
            "kv_cache_bytes",
            [](const LlamaModel & self, int64_t n_ctx, enum ggml_type type_k, enum ggml_type type_v) {
                if (n_ctx < 0) {
                    throw nb::value_error(("n_ctx must not be negative: " + std::to_string(n_ctx)).c_str());
                }
                return kv_cache_bytes(ModelUse(self.handle).get(), n_ctx, type_k, type_v);
            },
            nb::arg("n_ctx"), nb::arg("type_k") = GGML_TYPE_F16, nb::arg("type_v") = GGML_TYPE_F16,
            "Bytes of a KV cache for `n_ctx` tokens, or None where it is not simply keys and values of every layer for every\n"
            "token: models with a sliding window or a recurrent state, and encoders. At most 2**63 - 1.")
        .def_prop_ro("size", read<llama_model_size>(), "Size of all tensors in bytes.")
        .def_prop_ro("n_params", read<llama_model_n_params>(), "Number of parameters.")
        .def_prop_ro("n_ctx_train", read<llama_model_n_ctx_train>(), "Context length of the training, in tokens.")
        .def_prop_ro("n_positions", read<n_learned_positions>(),
                     "Positions that it has learned embeddings of: the most tokens of a sequence. 0 where positions are\n"
                     "computed (RoPE, ALiBi, a recurrent state), and a sequence may become longer.")
        .def_prop_ro("n_embd", read<llama_model_n_embd>(), "Width of the embeddings.")
        .def_prop_ro("n_embd_inp", read<llama_model_n_embd_inp>(), "Width of the input embeddings.")
        .def_prop_ro("n_embd_out", read<llama_model_n_embd_out>(), "Width of the output embeddings.")
        .def_prop_ro("n_layer", read<llama_model_n_layer>(), "Number of layers.")
        .def_prop_ro("n_layer_nextn", read<llama_model_n_layer_nextn>(), "Number of multi-token prediction layers.")
        .def_prop_ro("n_head", read_layer<llama_model_n_head>(), "Number of attention heads.")
        .def_prop_ro("n_head_kv", read_layer<llama_model_n_head_kv>(), "Number of key-value heads.")
        .def_prop_ro("n_swa", read<llama_model_n_swa>(), "Sliding window in tokens, 0 for none.")
        .def_prop_ro("rope_freq_scale_train", read<llama_model_rope_freq_scale_train>(), "RoPE frequency scale.")
        .def_prop_ro("has_encoder", read<llama_model_has_encoder>(), "Whether it needs LlamaContext.encode.")
        .def_prop_ro("has_decoder", read<llama_model_has_decoder>(), "Whether it can generate.")
        .def_prop_ro("decoder_start_token", read<llama_model_decoder_start_token>(),
                     "What an encoder-decoder model's output starts with, or -1.")
        .def_prop_ro("is_recurrent", read<llama_model_is_recurrent>(), "Whether it is recurrent (Mamba, RWKV, ...).")
        .def_prop_ro("is_hybrid", read<llama_model_is_hybrid>(), "Whether it mixes attention and recurrence.")
        .def_prop_ro(
            "is_causal",
            [](const LlamaModel & self) {
                ModelUse model(self.handle);
                return self.handle->causal;
            },
            "Whether a token attends to earlier ones only, which generating needs.")
        .def_prop_ro("is_diffusion", read<llama_model_is_diffusion>(), "Whether it is a diffusion model.")
        .def("__repr__", [](nb::object self) {
            auto & model = nb::cast<LlamaModel &>(self);
            return model.handle->closed() ? nb::str("<LlamaModel (closed)>")
                                          : nb::str("<LlamaModel {} from {}>").format(self.attr("desc"), self.attr("path"));
        });
}
