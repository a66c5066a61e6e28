#include "adapter.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include "context.hpp"
#include "ggml-cpu.h"
#include "gguf.h"
#include "llama-context.h" // not of llama.cpp's public API: the size of a graph, and how many nodes it may have
#include "llama-model.h"   // the tensors of a model
#include "model.hpp"

// -------------------------------------------------------------------------------------------------------------- registry

static thread_local int uses_of_this_thread = 0;

llama_adapter_lora * AdapterRegistry::load(llama_model * model, const std::string & path) {
    std::unique_lock<std::mutex> lock(mutex_);
    ++loads_waiting_;
    changed_.wait(lock, [this] { return users_ == 0 && !loading_; });
    --loads_waiting_;
    loading_ = true;
    lock.unlock();
    llama_adapter_lora * adapter = llama_adapter_lora_init(model, path.c_str());
    lock.lock();
    loading_ = false;
    free_unused();
    changed_.notify_all();
    return adapter;
}

void AdapterRegistry::free(llama_adapter_lora * adapter) {
    if (forked()) { // the memory is the parent's to free
        return;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    if (!forgotten_) {
        unused_.push_back(adapter);
        free_unused();
    }
}

void AdapterRegistry::forget() {
    std::lock_guard<std::mutex> lock(mutex_);
    forgotten_ = true;
    unused_.clear();
}

void AdapterRegistry::free_unused() {
    if (users_ == 0 && !loading_) {
        for (llama_adapter_lora * adapter : unused_) {
            llama_adapter_lora_free(adapter);
        }
        unused_.clear();
    }
}

AdaptersUse::AdaptersUse(AdapterRegistry & registry) : registry_(registry) {
    if (registry_.forked()) { // nobody loads an adapter in a child
        return;
    }
    std::unique_lock<std::mutex> lock(registry_.mutex_);
    // Those who wait to load go first, or two busy contexts would keep them waiting; but not before what they wait for.
    registry_.changed_.wait(lock, [&] {
        return !registry_.loading_ && (registry_.loads_waiting_ == 0 || uses_of_this_thread > 0);
    });
    ++registry_.users_;
    ++uses_of_this_thread;
}

AdaptersUse::~AdaptersUse() {
    if (registry_.forked()) {
        return;
    }
    std::lock_guard<std::mutex> lock(registry_.mutex_);
    --uses_of_this_thread;
    if (--registry_.users_ == 0) {
        registry_.free_unused();
        if (registry_.loads_waiting_ > 0) {
            registry_.changed_.notify_all();
        }
    }
}

AdapterHandle::~AdapterHandle() { model->adapters.free(adapter); }

// --------------------------------------------------------------------------------------------------------------- loading

namespace {

constexpr const char * kSuffixA = ".lora_a";
constexpr const char * kSuffixB = ".lora_b";
constexpr const char * kEmbeddings = "token_embd.weight";

bool ends_with(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string shape(const ggml_tensor * tensor) {
    std::string text;
    for (int i = 0; i < ggml_n_dims(tensor); ++i) {
        text += (i ? "x" : "") + std::to_string(tensor->ne[i]);
    }
    return text;
}

// Whether ggml can multiply by such a tensor.
bool computes(const ggml_tensor * tensor) {
    const ggml_type_traits_cpu * traits = ggml_get_type_traits_cpu(tensor->type);
    return traits->vec_dot && (tensor->type == GGML_TYPE_F32 || ggml_get_type_traits(tensor->type)->to_float);
}

// What of an adapter's file is damaged or does not fit the model, as far as llama.cpp asserts it or computes nonsense.
class AdapterFile {
  public:
    AdapterFile(const std::string & path, const llama_model & model) : path_(path), model_(model) {
        ggml_context * tensors = nullptr;
        file_.reset(gguf_init_from_file(path.c_str(), {true, &tensors}));
        tensors_.reset(tensors);
    }

    // Returns why the file cannot be loaded, or nothing. One that cannot even be read is for llama.cpp to explain.
    std::string problem() {
        if (!file_) {
            return "";
        }
        const std::string metadata = problem_of_metadata();
        return metadata.empty() ? problem_of_tensors() : metadata;
    }

    size_t n_weights() const { return pairs_.size(); }

  private:
    using Pair = std::pair<const ggml_tensor *, const ggml_tensor *>;

    std::string problem_of_metadata() const {
        const std::pair<const char *, std::string> expected[] = {
            {"general.type", "adapter"},
            {"adapter.type", "lora"},
            {"general.architecture", llm_arch_name(model_.arch)},
        };
        for (const auto & [key, value] : expected) {
            const int64_t id = gguf_find_key(file_.get(), key);
            const bool is_text = id >= 0 && gguf_get_kv_type(file_.get(), id) == GGUF_TYPE_STRING;
            const std::string found = is_text ? gguf_get_val_str(file_.get(), id) : "";
            if (found != value) {
                return std::string(key) + " is " + (is_text ? "\"" + found + "\"" : "missing") + ", not \"" + value + "\"";
            }
        }
        const int64_t alpha = gguf_find_key(file_.get(), "adapter.lora.alpha");
        if (alpha >= 0 && (gguf_get_kv_type(file_.get(), alpha) != GGUF_TYPE_FLOAT32 ||
                           !std::isfinite(gguf_get_val_f32(file_.get(), alpha)))) {
            return "adapter.lora.alpha is no finite number of type F32";
        }
        return "";
    }

    std::string problem_of_tensors() {
        std::error_code error;
        const auto file_size = std::filesystem::file_size(path_, error);
        for (int64_t i = 0; i < gguf_get_n_tensors(file_.get()); ++i) {
            const std::string name = gguf_get_tensor_name(file_.get(), i);
            const size_t begin = gguf_get_data_offset(file_.get()) + gguf_get_tensor_offset(file_.get(), i);
            const size_t size = gguf_get_tensor_size(file_.get(), i);
            if (error || begin > file_size || size > file_size - begin) {
                return "the file ends before its tensor " + name;
            }
            const bool is_a = ends_with(name, kSuffixA), is_b = ends_with(name, kSuffixB);
            if (is_a || is_b) {
                Pair & pair = pairs_[name.substr(0, name.size() - std::strlen(kSuffixA))];
                (is_a ? pair.first : pair.second) = ggml_get_tensor(tensors_.get(), name.c_str());
            }
        }
        if (pairs_.empty()) {
            return "it has no tensors of an adapter";
        }
        for (const auto & [name, pair] : pairs_) {
            if (const std::string problem = problem_of_pair(name, pair); !problem.empty()) {
                return problem;
            }
        }
        return "";
    }

    std::string problem_of_pair(const std::string & name, const Pair & pair) const {
        const auto [a, b] = pair;
        const ggml_tensor * weight = model_.get_tensor(name.c_str());
        if (!a || !b) {
            return name + (a ? kSuffixB : kSuffixA) + " is missing";
        }
        if (!weight || name.find(kSuffixA) != name.npos || name.find(kSuffixB) != name.npos) {
            return "the model has no tensor " + name + ": it was made for another one";
        }
        if (!computes(a) || !computes(b) || weight->type == GGML_TYPE_NVFP4) {
            return name + " has a type that cannot be computed with";
        }
        const bool embeddings = ends_with(name, kEmbeddings);
        // Where the output is computed with the embeddings, llama.cpp would use what is meant for the input there as well.
        if (embeddings && (name != kEmbeddings || !model_.get_tensor("output.weight"))) {
            return "this model cannot have other " + name + ": they are used for more than the input";
        }
        const int64_t rank = embeddings ? a->ne[0] : a->ne[1];
        const bool fits = embeddings ? weight->ne[0] == b->ne[1] && weight->ne[1] == a->ne[1] && b->ne[0] == rank
                                     : weight->ne[0] == a->ne[0] && weight->ne[1] == b->ne[1] && b->ne[0] == rank;
        const bool same_experts = a->ne[2] == weight->ne[2] && b->ne[2] == weight->ne[2];
        if (rank < 1 || !fits || !same_experts || a->ne[3] != 1 || b->ne[3] != 1) {
            return name + " is " + shape(weight) + " in the model, which " + shape(a) + " (A) and " + shape(b) +
                   " (B) do not fit: it was made for another one";
        }
        if (!is_finite(a) || !is_finite(b)) {
            return name + " has values that are no finite numbers";
        }
        return "";
    }

    // One value that is none would spread to whatever is in the KV cache.
    bool is_finite(const ggml_tensor * tensor) const {
        const int64_t id = gguf_find_tensor(file_.get(), tensor->name);
        std::vector<char> data(gguf_get_tensor_size(file_.get(), id));
        std::ifstream file(path_, std::ios::binary);
        file.seekg(
            static_cast<std::streamoff>(gguf_get_data_offset(file_.get()) + gguf_get_tensor_offset(file_.get(), id)));
        file.read(data.data(), static_cast<std::streamsize>(data.size()));
        if (!file) {
            return false;
        }
        const auto to_float = ggml_get_type_traits(tensor->type)->to_float;
        std::vector<float> values(static_cast<size_t>(tensor->ne[0]));
        for (int64_t row = 0; row < ggml_nrows(tensor); ++row) {
            const char * source = data.data() + row * static_cast<int64_t>(tensor->nb[1]);
            if (tensor->type == GGML_TYPE_F32) {
                std::memcpy(values.data(), source, values.size() * sizeof(float));
            } else {
                to_float(source, values.data(), tensor->ne[0]);
            }
            if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
                return false;
            }
        }
        return true;
    }

    const std::string path_;
    const llama_model & model_;
    std::unique_ptr<gguf_context, decltype(&gguf_free)> file_{nullptr, gguf_free};
    std::unique_ptr<ggml_context, decltype(&ggml_free)> tensors_{nullptr, ggml_free};
    std::map<std::string, Pair> pairs_;
};

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
    llama_adapter_lora * adapter = nullptr;
    std::string problem;
    size_t n_weights = 0;
    {
        WithoutGil release;
        AdapterFile file(path, *model.get());
        problem = file.problem();
        if (problem.empty()) {
            n_weights = file.n_weights();
            adapter = model_handle->adapters.load(model.get(), path);
        }
    }
    if (!adapter) {
        raise(PyExc_RuntimeError, "cannot load the adapter " + path + ": " +
                                      (problem.empty() ? logged_errors("llama.cpp gave no reason") : problem));
    }
    std::shared_ptr<AdapterHandle> handle(new AdapterHandle{model_handle, adapter, path, {}, {}, n_weights});
    for (int32_t i = 0; i < llama_adapter_meta_count(adapter); ++i) {
        handle->metadata.emplace_back(read_string([&](char * buffer, size_t n) {
                                          return llama_adapter_meta_key_by_index(adapter, i, buffer, n);
                                      }),
                                      read_string([&](char * buffer, size_t n) {
                                          return llama_adapter_meta_val_str_by_index(adapter, i, buffer, n);
                                      }));
    }
    const llama_token * tokens = llama_adapter_get_alora_invocation_tokens(adapter);
    handle->invocation_tokens.assign(tokens, tokens + llama_adapter_get_alora_n_invocation_tokens(adapter));
    return handle;
}

bool is_closed(const LlamaAdapterLora & self) { return !self.handle || self.handle->model->closed(); }

// Returns what is shared, which keeps it from being freed.
std::shared_ptr<AdapterHandle> open(const LlamaAdapterLora & self) {
    if (is_closed(self)) {
        throw std::runtime_error(self.handle ? "the model is closed" : "the adapter is closed");
    }
    return self.handle;
}

// --------------------------------------------------------------------------------------------------- adapters of a context

constexpr size_t kNodesPerWeight = 6; // of a graph, as llama_adapter_lora::get_n_nodes

using Scales = std::map<std::shared_ptr<AdapterHandle>, float>;

Scales to_scales(const ModelHandle & model, const std::vector<std::pair<LlamaAdapterLora *, double>> & adapters) {
    Scales scales;
    for (const auto & [adapter, value] : adapters) {
        if (!adapter) {
            throw nb::type_error("an adapter is None");
        }
        const std::shared_ptr<AdapterHandle> handle = open(*adapter);
        const auto scale = static_cast<float>(value);
        if (handle->model.get() != &model) {
            throw nb::value_error("the adapter was loaded for another model than the context's");
        }
        if (!std::isfinite(scale)) {
            throw nb::value_error(
                ("the scale of an adapter must be a finite float32, not " + std::to_string(value)).c_str());
        }
        if (!scales.emplace(handle, scale).second) {
            throw nb::value_error("an adapter is there twice");
        }
    }
    for (auto item = scales.begin(); item != scales.end();) {
        item = item->second == 0 ? scales.erase(item) : std::next(item);
    }
    return scales;
}

// Some architectures have a fixed number of nodes, beyond which ggml aborts.
void check_graph(ContextUse & use, const Scales & scales) {
    llama_context * context = use.get();
    if (use->adapters.n_nodes_without == 0) {
        use->adapters.n_nodes_without = ggml_graph_n_nodes(context->get_gf_res_reserve()->get_gf());
    }
    size_t n_nodes = static_cast<size_t>(use->adapters.n_nodes_without);
    for (const auto & [handle, scale] : scales) {
        n_nodes += kNodesPerWeight * handle->n_weights;
    }
    const size_t limit = context->graph_max_nodes(std::min(llama_n_ctx(context), llama_n_ubatch(context)));
    if (n_nodes > limit) {
        throw nb::value_error(("too many adapters at once: the graph would have " + std::to_string(n_nodes) +
                               " nodes, and may have " + std::to_string(limit))
                                  .c_str());
    }
}

void set_adapters_lora(const LlamaContext & self, const std::vector<std::pair<LlamaAdapterLora *, double>> & adapters) {
    Scales scales = to_scales(*self.handle->model, adapters);
    ContextUse use(self);
    if (scales == use->adapters.scales) {
        return;
    }
    WithoutGil release(false);
    AdaptersUse registry(use->model->adapters);
    check_graph(use, scales);
    std::vector<llama_adapter_lora *> pointers;
    std::vector<float> values;
    for (const auto & [handle, scale] : scales) {
        pointers.push_back(handle->adapter);
        values.push_back(scale);
    }
    llama_set_adapters_lora(use.get(), pointers.data(), pointers.size(), values.data());
    use->adapters.scales = std::move(scales);
}

} // namespace

void init_adapter(nb::module_ & m) {
    nb::class_<LlamaAdapterLora>(m, "LlamaAdapterLora",
                                 "A LoRA adapter of a model (llama_adapter_lora), which it keeps in memory.\n\n"
                                 "It changes nothing until LlamaContext.set_adapters_lora().\n\n"
                                 ">>> with LlamaAdapterLora(model, \"adapter.gguf\") as adapter:\n"
                                 "...     context.set_adapters_lora([(adapter, 1.0)])")
        .def(
            "__init__",
            [](LlamaAdapterLora * self, const LlamaModel & model, nb::object path) {
                new (self) LlamaAdapterLora{load_adapter(model.handle, to_path(path))};
            },
            nb::arg("model"), nb::arg("path"),
            nb::sig("def __init__(self, model: LlamaModel, path: str | os.PathLike[str]) -> None"),
            "Load the GGUF file at `path`, between two decodes of the model's contexts. The GIL is released meanwhile.\n\n"
            "Raises FileNotFoundError, IsADirectoryError or PermissionError as open() does, ValueError if it is no GGUF\n"
            "file, RuntimeError if it is no adapter, is damaged, or was made for another model.")
        .def(
            "close", [](LlamaAdapterLora & self) { self.handle.reset(); },
            "Free the adapter, as soon as it is set in no context any more. Closing a closed one does nothing; every other\n"
            "use raises RuntimeError.")
        .def_prop_ro("closed", &is_closed, "Whether it, or its model, was closed.")
        .def(
            "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> LlamaAdapterLora"))
        .def(
            "__exit__", [](nb::object self, nb::args) { self.attr("close")(); },
            nb::sig("def __exit__(self, *args: object) -> None"))
        .def_prop_ro(
            "path",
            [](const LlamaAdapterLora & self) {
                const std::string path = open(self)->path;
                return nb::steal<nb::str>(
                    PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size())));
            },
            "The file it was loaded from.")
        .def_prop_ro(
            "metadata",
            [](const LlamaAdapterLora & self) {
                nb::dict result;
                for (const auto & [key, value] : open(self)->metadata) {
                    result[to_str(key)] = to_str(value);
                }
                return result;
            },
            nb::sig("def metadata(self) -> dict[str, str]"), "The file's metadata, arrays left out.")
        .def_prop_ro(
            "alora_invocation_tokens", [](const LlamaAdapterLora & self) { return open(self)->invocation_tokens; },
            "The tokens from which on an activated LoRA (aLoRA) is to be used; empty for any other.")
        .def("__repr__", [](nb::object self) {
            return is_closed(nb::cast<LlamaAdapterLora &>(self))
                       ? nb::str("<LlamaAdapterLora (closed)>")
                       : nb::str("<LlamaAdapterLora from {}>").format(self.attr("path"));
        });
}

void init_context_adapters(nb::class_<LlamaContext> & context) {
    context.def(
        "set_adapters_lora", &set_adapters_lora, nb::arg("adapters"),
        nb::sig("def set_adapters_lora(self, adapters: collections.abc.Sequence[tuple[LlamaAdapterLora, float]]) -> None"),
        "Compute with these adapters, each multiplied by its scale, from the next decode on, and with no other.\n\n"
        "An adapter of scale 0 is left out. If that changes anything, the next decode reserves its memory anew. What the\n"
        "KV cache holds stays as it was computed. Raises ValueError for an adapter of another model, a scale that is not\n"
        "finite, and more adapters than llama.cpp has room for.");
}
