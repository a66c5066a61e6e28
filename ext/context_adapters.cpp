// The LoRA adapters of a context.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <iterator>

#include "adapter.hpp"
#include "context.hpp"
#include "errors.hpp"
#include "guard.hpp"
#include "model_internals.hpp"
#include "modules.hpp"

namespace {

constexpr size_t kNodesPerWeight = 6; // of the graph, as in llama_adapter_lora::get_n_nodes

using Scales = std::map<std::shared_ptr<AdapterHandle>, float>;

Scales to_scales(const ModelHandle & model, const std::vector<std::pair<LlamaAdapterLora *, double>> & adapters) {
    Scales scales;
    for (const auto & [adapter, value] : adapters) {
        if (!adapter) {
            throw_type_error("an adapter is None");
        }
        const std::shared_ptr<AdapterHandle> handle = open_adapter(*adapter);
        const auto scale = static_cast<float>(value);
        if (handle->model.get() != &model) {
            throw_value_error("the adapter was loaded for another model than the context's");
        }
        if (!std::isfinite(scale)) {
            throw_value_error("the scale of an adapter must be a finite float32, not " + std::to_string(value));
        }
        if (!scales.emplace(handle, scale).second) {
            throw_value_error("an adapter occurs twice");
        }
    }
    for (auto item = scales.begin(); item != scales.end();) {
        item = item->second == 0 ? scales.erase(item) : std::next(item);
    }
    return scales;
}

// Some architectures have a limit on the nodes of a graph, above which ggml aborts.
void check_graph(ContextUse & use, const Scales & scales) {
    llama_context * context = use.get();
    if (use->adapters.n_nodes_without == 0) {
        use->adapters.n_nodes_without = n_graph_nodes(context);
    }
    size_t n_nodes = static_cast<size_t>(use->adapters.n_nodes_without);
    for (const auto & [handle, scale] : scales) {
        n_nodes += kNodesPerWeight * handle->n_weights;
    }
    const size_t limit = most_graph_nodes(context);
    if (n_nodes > limit) {
        throw_value_error("too many adapters at once: the graph would have " + std::to_string(n_nodes) +
                          " nodes, and may have " + std::to_string(limit));
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

void init_context_adapters(nb::class_<LlamaContext> & context) {
    context.def(
        "set_adapters_lora", &set_adapters_lora, nb::arg("adapters"),
        nb::sig("def set_adapters_lora(self, adapters: collections.abc.Sequence[tuple[LlamaAdapterLora, float]]) -> None"),
        R"doc(
        Compute with these LoRA adapters, and no others, from the next decode on (llama_set_adapters_lora).

        What the KV cache holds stays as it was computed. If the adapters change, the next decode reserves its memory
        again.

        Args:
            adapters: Pairs of an adapter of the context's model and its scale, a finite float32. An adapter of
                scale 0 is left out.

        Raises:
            ValueError: An adapter of another model, or given twice, a scale that is not finite, or more adapters
                than the graph has nodes for.
            RuntimeError: An adapter is closed.
        )doc");
}
