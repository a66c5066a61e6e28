// The Python class LlamaModel.
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "conversion.hpp"
#include "guard.hpp"
#include "kv_cache_size.hpp"
#include "model.hpp"
#include "model_internals.hpp"
#include "model_load.hpp"
#include "modules.hpp"
#include "params.hpp"
#include "text.hpp"

namespace {

void close_model(LlamaModel & self) {
    LogDelivery delivery;
    if (!self.handle->closed()) {
        WithoutGil release(false); // mostly waits
        self.handle->close();
    }
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

nb::str description(const LlamaModel & self) {
    ModelUse model(self.handle);
    return to_str(read_string([&](char * buffer, size_t size) { return llama_model_desc(model.get(), buffer, size); }));
}

std::vector<std::string> layer_devices(const LlamaModel & self) {
    ModelUse model(self.handle);
    std::vector<std::string> result;
    for (int32_t il = 0; il < n_layers(model.get()) && llama_model_n_layer(model.get()) > 0; ++il) {
        result.emplace_back(ggml_backend_dev_name(device_of_layer(model.get(), il)));
    }
    return result;
}

bool is_causal(const LlamaModel & self) {
    ModelUse model(self.handle);
    return self.handle->causal;
}

void copy_mapped_weights(const LlamaModel & self) {
    WithoutGil release(false); // a block may just be copied
    ModelUse(self.handle).mapped().copy();
}

nb::str model_repr(nb::object self) {
    return nb::cast<LlamaModel &>(self).handle->closed()
               ? nb::str("<LlamaModel (closed)>")
               : nb::str("<LlamaModel {} from {}>").format(self.attr("desc"), self.attr("path"));
}

// A property that reads one value of the model.
template <auto function> auto model_value() {
    return [](const LlamaModel & self) { return function(ModelUse(self.handle).get()); };
}

// The same for a value that llama.cpp reads from the first layer, which vocab_only does not load.
template <auto function> auto first_layer_value() {
    return [](const LlamaModel & self) {
        ModelUse model(self.handle);
        return llama_model_n_layer(model.get()) > 0 ? function(model.get()) : 0;
    };
}

void init_life(nb::class_<LlamaModel> & model) {
    model
        .def(
            "__init__",
            [](LlamaModel * self, nb::object path, const LlamaModelParams * params) {
                new (self) LlamaModel{load_model(to_path(path), params ? *params : LlamaModelParams())};
            },
            nb::arg("path"), nb::arg("params") = nb::none(),
            nb::sig("def __init__(self, path: str | os.PathLike[str], params: LlamaModelParams | None = None) -> None"),
            R"doc(
            Load a GGUF file (llama_model_load_from_file).

            The GIL is released meanwhile. Ctrl-C stops the load.

            Args:
                path: The file; of a split model, its first file.
                params: How to load it; llama.cpp's defaults if None.

            Raises:
                OSError: The file cannot be read: FileNotFoundError, IsADirectoryError, PermissionError.
                ValueError: The file is not GGUF, or a parameter is out of range.
                RuntimeError: llama.cpp cannot load it, or a callback stopped the load; with the reason.
            )doc")
        .def("close", &close_model, R"doc(
            Free the model, and every context created from it, at once (llama_model_free).

            Waits for computations in other threads. Closing a closed model does nothing.

            Raises:
                RuntimeError: Called from a callback of a computation. Every other use of a closed model raises it, too.
            )doc")
        .def_prop_ro(
            "closed", [](const LlamaModel & self) { return self.handle->closed(); }, "Whether close() was called.")
        .def(
            "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> LlamaModel"))
        .def(
            "__exit__", [](nb::object self, nb::args) { self.attr("close")(); },
            nb::sig("def __exit__(self, *args: object) -> None"))
        .def("__repr__", &model_repr);
}

// Long: a list of bindings.
void init_content(nb::class_<LlamaModel> & model) {
    model
        .def_prop_ro(
            "path", [](const LlamaModel & self) { return path_to_str(self.handle->path()); },
            "The file it was loaded from.")
        .def_prop_ro(
            "vocab", [](const LlamaModel & self) { return LlamaVocab{self.handle}; }, "The vocabulary.")
        .def_prop_ro("metadata", &metadata, nb::sig("def metadata(self) -> dict[str, str]"),
                     "The metadata of the file, without arrays.")
        .def("chat_template", &chat_template, nb::arg("name") = nb::none(), R"doc(
            Return a chat template of the model (llama_model_chat_template).

            Args:
                name: Name of the template, such as "tool_use"; None for the default one.

            Returns:
                Jinja source, or None if the model has no such template.
            )doc")
        .def_prop_ro("desc", &description,
                     "Architecture, size and quantization, such as \"llama 1B Q4_0\" (llama_model_desc).")
        .def_prop_ro(
            "ftype",
            [](const LlamaModel & self) { return llama_ftype_name(llama_model_ftype(ModelUse(self.handle).get())); },
            "Quantization, such as \"Q4_0\".")
        .def(
            "kv_cache_bytes",
            [](const LlamaModel & self, const LlamaContextParams & params) {
                return kv_cache_bytes(ModelUse(self.handle).get(), params);
            },
            nb::arg("params"), R"doc(
            Return what the memory of a context takes: keys and values, sliding windows, recurrent states.

            Args:
                params: The parameters of the context. Its sizes, data types, `swa_full` and `offload_kqv` matter.

            Returns:
                Bytes by the name of the device, at most 2**63 - 1 each; no devices for a model without a memory. None for
                the few architectures with a memory of their own kind (DeepSeek V3.2 and V4, MiniMax M3).
            )doc")
        .def_prop_ro("layer_devices", &layer_devices, R"doc(
            The name of the device that each layer is on, the output as the last one.

            Empty with vocab_only.
            )doc")
        .def_prop_ro(
            "n_mapped_bytes", [](const LlamaModel & self) { return ModelUse(self.handle).mapped().n_bytes(); },
            "Size of the weights that every token reads where the file is mapped into memory, in bytes. The others have\n"
            "buffers of their own.")
        .def("copy_mapped_weights", &copy_mapped_weights, R"doc(
            Have a thread copy the weights that every token reads where the file is mapped into memory to large pages.

            They are read faster there, and no longer shared with other processes. The thread begins a second later, and
            replaces 2 MiB at a time, while others compute. What another mapping of the file shares at that time stays, as
            does everything on systems without such pages.
            )doc")
        .def_prop_ro("size", model_value<llama_model_size>(), "Size of all tensors, in bytes.")
        .def_prop_ro("n_params", model_value<llama_model_n_params>(), "Number of parameters.");
}

void init_architecture(nb::class_<LlamaModel> & model) {
    model.def_prop_ro("n_ctx_train", model_value<llama_model_n_ctx_train>(), "Context length of the training, in tokens.")
        .def_prop_ro("n_positions", model_value<n_learned_positions>(),
                     "Number of learned position embeddings: the most tokens of a sequence. 0 where positions are\n"
                     "computed (RoPE, ALiBi, a recurrent state), so that they do not limit a sequence.")
        .def_prop_ro("n_embd", model_value<llama_model_n_embd>(), "Width of the embeddings.")
        .def_prop_ro("n_embd_inp", model_value<llama_model_n_embd_inp>(), "Width of the input embeddings.")
        .def_prop_ro("n_embd_out", model_value<llama_model_n_embd_out>(), "Width of the output embeddings.")
        .def_prop_ro("n_layer", model_value<llama_model_n_layer>(), "Number of layers.")
        .def_prop_ro("n_layer_nextn", model_value<llama_model_n_layer_nextn>(),
                     "Number of layers for multi-token prediction.")
        .def_prop_ro("n_head", first_layer_value<llama_model_n_head>(), "Number of attention heads; 0 with vocab_only.")
        .def_prop_ro("n_head_kv", first_layer_value<llama_model_n_head_kv>(),
                     "Number of key-value heads; 0 with vocab_only.")
        .def_prop_ro("n_swa", model_value<llama_model_n_swa>(), "Sliding window in tokens; 0 if there is none.")
        .def_prop_ro("rope_freq_scale_train", model_value<llama_model_rope_freq_scale_train>(),
                     "Scale of the RoPE frequencies in the training.")
        .def_prop_ro("has_encoder", model_value<llama_model_has_encoder>(),
                     "Whether it has an encoder: see LlamaContext.encode.")
        .def_prop_ro("has_decoder", model_value<llama_model_has_decoder>(), "Whether it has a decoder, to generate with.")
        .def_prop_ro("decoder_start_token", model_value<llama_model_decoder_start_token>(),
                     "First token of the output of an encoder-decoder model, or -1.")
        .def_prop_ro("is_recurrent", model_value<llama_model_is_recurrent>(), "Whether it is recurrent (Mamba, RWKV, ...).")
        .def_prop_ro("is_hybrid", model_value<llama_model_is_hybrid>(),
                     "Whether it has both attention and recurrent layers.")
        .def_prop_ro("is_causal", &is_causal, "Whether a token attends to earlier ones only, as generation needs.")
        .def_prop_ro("is_diffusion", model_value<llama_model_is_diffusion>(), "Whether it is a diffusion model.");
}

} // namespace

void init_model(nb::module_ & m) {
    nb::class_<LlamaModel> model(m, "LlamaModel", R"doc(
        A loaded GGUF model (llama_model).

        Contexts created from it keep it in memory. Any number of threads may use it. It is a context manager that closes
        itself.

        >>> with LlamaModel("model.gguf") as model:
        ...     print(model.desc, model.n_params)
        )doc");
    init_life(model);
    init_content(model);
    init_architecture(model);
}
