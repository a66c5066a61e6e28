#include "adapter.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "adapter_file.hpp"
#include "conversion.hpp"
#include "errors.hpp"
#include "files.hpp"
#include "guard.hpp"
#include "modules.hpp"
#include "text.hpp"

namespace {

// The adapter's metadata as pairs of a key and a value.
std::vector<std::pair<std::string, std::string>> read_metadata(const llama_adapter_lora * adapter) {
    std::vector<std::pair<std::string, std::string>> metadata;
    for (int32_t i = 0; i < llama_adapter_meta_count(adapter); ++i) {
        std::string key =
            read_string([&](char * buffer, size_t n) { return llama_adapter_meta_key_by_index(adapter, i, buffer, n); });
        std::string value = read_string(
            [&](char * buffer, size_t n) { return llama_adapter_meta_val_str_by_index(adapter, i, buffer, n); });
        metadata.emplace_back(std::move(key), std::move(value));
    }
    return metadata;
}

// Returns null and sets `problem` if the file cannot be loaded; `problem` is empty if llama.cpp has logged it.
llama_adapter_lora * check_and_load(ModelHandle & handle, llama_model * model, const std::string & path,
                                    std::string & problem, size_t & n_weights) {
    WithoutGil release;
    AdapterFile file(path, *model);
    problem = file.problem();
    if (!problem.empty()) {
        return nullptr;
    }
    n_weights = file.n_weights();
    return handle.adapters.load(model, path);
}

std::shared_ptr<AdapterHandle> load_adapter(const std::shared_ptr<ModelHandle> & model_handle, const std::string & path) {
    if (native_holds) {
        throw std::runtime_error("an adapter cannot be loaded while this thread computes: not from a callback");
    }
    LogDelivery delivery;
    check_gguf(path);
    refresh_log_level();
    ModelUse model(model_handle);
    if (model_handle->forked()) {
        throw std::runtime_error("this model was loaded before os.fork(): load it in this process to load an adapter");
    }
    if (!model_handle->has_weights) {
        throw std::runtime_error("the model was loaded without its weights (vocab_only or no_alloc): it has no adapters");
    }
    clear_logged_errors();
    std::string problem;
    size_t n_weights = 0;
    llama_adapter_lora * adapter = check_and_load(*model_handle, model.get(), path, problem, n_weights);
    if (!adapter) {
        raise(ErrorType::kRuntime, "cannot load the adapter " + path + ": " +
                                       (problem.empty() ? logged_errors("llama.cpp gave no reason") : problem));
    }
    std::shared_ptr<AdapterHandle> handle(new AdapterHandle{model_handle, adapter, path, {}, {}, n_weights});
    handle->metadata = read_metadata(adapter);
    const llama_token * tokens = llama_adapter_get_alora_invocation_tokens(adapter);
    handle->invocation_tokens.assign(tokens, tokens + llama_adapter_get_alora_n_invocation_tokens(adapter));
    return handle;
}

bool adapter_is_closed(const LlamaAdapterLora & self) { return !self.handle || self.handle->model->closed(); }

nb::dict metadata_dict(const LlamaAdapterLora & self) {
    nb::dict result;
    for (const auto & [key, value] : open_adapter(self)->metadata) {
        result[to_str(key)] = to_str(value);
    }
    return result;
}

nb::str adapter_repr(nb::object self) {
    return adapter_is_closed(nb::cast<LlamaAdapterLora &>(self))
               ? nb::str("<LlamaAdapterLora (closed)>")
               : nb::str("<LlamaAdapterLora from {}>").format(self.attr("path"));
}

} // namespace

AdapterHandle::~AdapterHandle() { model->adapters.free(adapter); }

std::shared_ptr<AdapterHandle> open_adapter(const LlamaAdapterLora & adapter) {
    if (adapter_is_closed(adapter)) {
        throw std::runtime_error(adapter.handle ? "the model is closed" : "the adapter is closed");
    }
    return adapter.handle;
}

// Long: a list of bindings.
void init_adapter(nb::module_ & m) {
    nb::class_<LlamaAdapterLora>(m, "LlamaAdapterLora", R"doc(
        A LoRA adapter of a model (llama_adapter_lora). It keeps the model in memory.

        It has no effect before LlamaContext.set_adapters_lora().

        >>> with LlamaAdapterLora(model, "adapter.gguf") as adapter:
        ...     context.set_adapters_lora([(adapter, 1.0)])
        )doc")
        .def(
            "__init__",
            [](LlamaAdapterLora * self, const LlamaModel & model, nb::object path) {
                new (self) LlamaAdapterLora{load_adapter(model.handle, to_path(path))};
            },
            nb::arg("model"), nb::arg("path"),
            nb::sig("def __init__(self, model: LlamaModel, path: str | os.PathLike[str]) -> None"),
            R"doc(
            Load a GGUF file (llama_adapter_lora_init), between two decodes of the model's contexts.

            The GIL is released meanwhile.

            Args:
                model: The model that the adapter was made for.
                path: The file.

            Raises:
                OSError: The file cannot be read: FileNotFoundError, IsADirectoryError, PermissionError.
                ValueError: The file is not GGUF.
                RuntimeError: The file is not an adapter, is damaged, or was made for another model; or this thread
                    computes.
            )doc")
        .def(
            "close", [](LlamaAdapterLora & self) { self.handle.reset(); }, R"doc(
            Free the adapter, as soon as it is set in no context (llama_adapter_lora_free).

            Closing a closed adapter does nothing; every other use of it raises RuntimeError.
            )doc")
        .def_prop_ro("closed", &adapter_is_closed, "Whether it, or its model, was closed.")
        .def(
            "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> LlamaAdapterLora"))
        .def(
            "__exit__", [](nb::object self, nb::args) { self.attr("close")(); },
            nb::sig("def __exit__(self, *args: object) -> None"))
        .def_prop_ro(
            "path", [](const LlamaAdapterLora & self) { return path_to_str(open_adapter(self)->path); },
            "The file it was loaded from.")
        .def_prop_ro("metadata", &metadata_dict, nb::sig("def metadata(self) -> dict[str, str]"),
                     "The metadata of the file, without arrays.")
        .def_prop_ro(
            "alora_invocation_tokens", [](const LlamaAdapterLora & self) { return open_adapter(self)->invocation_tokens; },
            "Token ids behind which an activated LoRA (aLoRA) takes effect; empty for any other adapter.")
        .def("__repr__", &adapter_repr);
}
