// How much memory models and contexts take on each device, and how many layers fit on the GPUs (llama.cpp's common/fit).
#include "fit.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "backend.hpp"
#include "context.hpp"
#include "context_limits.hpp"
#include "errors.hpp"
#include "fit_log.hpp"
#include "guard.hpp"
#include "llama-ext.h" // not of llama.cpp's public API
#include "metadata.hpp"
#include "model.hpp"
#include "model_internals.hpp"
#include "model_load.hpp"
#include "modules.hpp"
#include "params.hpp"

namespace {

struct LlamaMemoryUse {
    std::string device;
    size_t weights = 0, kv_cache = 0, compute = 0;
};

struct FreeContext {
    void operator()(llama_context * context) const { llama_free(context); }
};

bool is_gpu(ggml_backend_dev_t device) {
    const enum ggml_backend_dev_type type = ggml_backend_dev_type(device);
    return type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU;
}

// Adds up buffers by the device whose memory they are in: host memory, of the CPU, first.
class Breakdown {
  public:
    Breakdown() { uses_.push_back({ggml_backend_dev_name(cpu())}); }

    LlamaMemoryUse & of(ggml_backend_buffer_type_t type) {
        ggml_backend_dev_t device = ggml_backend_buft_is_host(type) ? nullptr : ggml_backend_buft_get_device(type);
        const std::string name = ggml_backend_dev_name(device && is_gpu(device) ? device : cpu());
        for (LlamaMemoryUse & use : uses_) {
            if (use.device == name) {
                return use;
            }
        }
        uses_.push_back({name});
        return uses_.back();
    }
    std::vector<LlamaMemoryUse> take() { return std::move(uses_); }

  private:
    static ggml_backend_dev_t cpu() { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); }
    std::vector<LlamaMemoryUse> uses_;
};

std::vector<LlamaMemoryUse> memory_of(const llama_context * context) {
    Breakdown breakdown;
    for (const auto & [type, bytes] : llama_get_memory_breakdown(context)) {
        LlamaMemoryUse & use = breakdown.of(type);
        use.weights += bytes.model;
        use.kv_cache += bytes.context;
        use.compute += bytes.compute;
    }
    return breakdown.take();
}

std::vector<LlamaMemoryUse> weights_memory(const LlamaModel & self) {
    ModelUse model(self.handle);
    Breakdown breakdown;
    for (const auto & [type, bytes] : weights_by_buffer(model.get())) {
        breakdown.of(type).weights += bytes;
    }
    return breakdown.take();
}

std::vector<LlamaMemoryUse> context_memory(const LlamaContext & self) { return memory_of(ContextUse(self).get()); }

void check_simulated(const LlamaModel & model) {
    if (!model.handle->simulated) {
        throw_value_error("the model has to be loaded with no_alloc=True and load_mode=LlamaLoadMode.NONE");
    }
}

llama_context_params without_callbacks(const LlamaContextParams & source) {
    llama_context_params params = source;
    params.samplers = nullptr;
    params.n_samplers = 0;
    params.ctx_other = nullptr;
    params.cb_eval = nullptr;
    params.abort_callback = nullptr;
    return params;
}

std::vector<LlamaMemoryUse> memory_needed(const LlamaModel & self, const LlamaContextParams & source) {
    LogDelivery delivery;
    check_simulated(self);
    ModelUse model(self.handle);
    check_context_params(source, model.get(), self.handle->causal);
    check_context_memory(source, model.get());
    clear_logged_errors();
    std::vector<LlamaMemoryUse> result;
    {
        WithoutGil release;
        ProbeLog quiet;
        const std::unique_ptr<llama_context, FreeContext> context(
            llama_init_from_model(model.get(), without_callbacks(source)));
        if (context) {
            result = memory_of(context.get());
        }
    }
    if (result.empty()) {
        raise(ErrorType::kRuntime, "cannot tell the memory of a context of n_ctx=" + std::to_string(source.n_ctx) + ": " +
                                       logged_errors("llama.cpp gave no reason"));
    }
    return result;
}

// What common_fit_params reads and writes.
struct Fit {
    Fit(const LlamaModelParams & source, const LlamaContextParams & context_source, size_t margin)
        : model_params(source), model(model_params.get()), context(without_callbacks(context_source)),
          split(llama_max_devices(), 0.0f), overrides(llama_max_tensor_buft_overrides()),
          margins(llama_max_devices(), margin) {
        model.progress_callback = nullptr;
        model.no_alloc = false;
        std::copy_n(model.tensor_split ? model.tensor_split : split.data(), model.tensor_split ? split.size() : 0,
                    split.begin());
    }

    ModelParams model_params;
    llama_model_params model;
    llama_context_params context;
    std::vector<float> split;
    std::vector<llama_model_tensor_buft_override> overrides;
    std::vector<size_t> margins;
};

// Throws unless all devices that would be used are GPUs: common_fit_params counts no memory for others, and divides by it.
void check_gpus(const llama_model_params & params) {
    for (ggml_backend_dev_t * device = params.devices; device && *device; ++device) {
        if (!is_gpu(*device)) {
            throw_value_error(std::string("layers can be fitted to GPUs only, not to ") + ggml_backend_dev_name(*device));
        }
    }
}

std::pair<LlamaModelParams, uint32_t> result_of(const Fit & fit, const LlamaModelParams & source) {
    LlamaModelParams result = source;
    result.n_gpu_layers = fit.model.n_gpu_layers;
    if (fit.model.tensor_split == fit.split.data()) {
        result.split = fit.split;
    }
    if (fit.model.tensor_buft_overrides == fit.overrides.data()) {
        result.buffer_overrides.clear();
        for (const auto & override : fit.overrides) {
            if (!override.pattern) {
                break;
            }
            result.buffer_overrides.emplace_back(override.pattern, ggml_backend_buft_name(override.buft));
        }
    }
    return {std::move(result), fit.context.n_ctx};
}

// Adds what others need to the margins, which are in the order of the model's devices; without any, host memory is the first.
void add_reserved(Fit & fit, const std::map<std::string, size_t> & reserved, const llama_model * model) {
    const int32_t n_devices = llama_model_n_devices(model);
    for (int32_t i = 0; i < std::max(n_devices, 1); ++i) {
        ggml_backend_dev_t device =
            n_devices ? llama_model_get_device(model, i) : ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        if (const auto found = reserved.find(ggml_backend_dev_name(device)); found != reserved.end()) {
            fit.margins[i] += found->second;
        }
    }
}

std::pair<LlamaModelParams, uint32_t> fit_params(const LlamaModel & self, const LlamaModelParams & model_params,
                                                 const LlamaContextParams & context_params, size_t margin,
                                                 uint32_t n_ctx_min, const std::map<std::string, size_t> & reserved) {
    static std::mutex fitting; // common_fit_params keeps patterns in static strings
    LogDelivery delivery;
    check_simulated(self);
    ModelUse model(self.handle);
    check_context_params(context_params, model.get(), self.handle->causal);
    Fit fit(model_params, context_params, margin);
    check_gpus(fit.model);
    add_reserved(fit, reserved, model.get());
    enum common_params_fit_status status = COMMON_PARAMS_FIT_STATUS_ERROR;
    {
        WithoutGil release;
        ProbeLog quiet;
        check_metadata(self.handle->path(), fit.model);
        take_fit_warnings();
        const std::lock_guard<std::mutex> lock(fitting);
        status = common_fit_params(self.handle->path().c_str(), &fit.model, &fit.context, fit.split.data(),
                                   fit.overrides.data(), fit.margins.data(), n_ctx_min, nullptr, GGML_LOG_LEVEL_ERROR);
    }
    if (status != COMMON_PARAMS_FIT_STATUS_SUCCESS) {
        const std::string why = take_fit_warnings();
        raise(ErrorType::kRuntime, why.empty() ? "llama.cpp gave no reason" : why);
    }
    return result_of(fit, model_params);
}

} // namespace

void init_fit(nb::module_ & m, nb::class_<LlamaContext> & context) {
    nb::class_<LlamaMemoryUse>(m, "LlamaMemoryUse", "The memory that a model and a context take on one device, in bytes.")
        .def_ro("device", &LlamaMemoryUse::device, "Name of the device; that of the CPU stands for host memory.")
        .def_ro("weights", &LlamaMemoryUse::weights, "Weights of the model.")
        .def_ro("kv_cache", &LlamaMemoryUse::kv_cache, "Memory of the context: keys, values, recurrent states.")
        .def_ro("compute", &LlamaMemoryUse::compute, "Buffers for what is computed.");
    context.def("memory_use", &context_memory, "Return the memory that the context and its model take, by device.");
    m.def("weights_memory", &weights_memory, nb::arg("model"), R"doc(
        Return the memory that the weights of a model take, by device.

        Weights in a file that is mapped into memory are counted as host memory.
        )doc");
    m.def("memory_needed", &memory_needed, nb::arg("model"), nb::arg("params"), R"doc(
        Return the memory that a model and a context would take, by device, without loading or allocating them.

        The recurrent states of a model are allocated for a moment. The GIL is released meanwhile.

        Args:
            model: A model that was loaded with no_alloc=True and load_mode=LlamaLoadMode.NONE.
            params: The parameters of the context; callbacks and samplers are left out.

        Raises:
            ValueError: The model was loaded otherwise, or a parameter is out of range.
            MemoryError: The KV cache is larger than the machine's memory.
            RuntimeError: llama.cpp cannot create such a context, with the reason.
        )doc");
    m.def("fit_params", &fit_params, nb::arg("model"), nb::arg("model_params"), nb::arg("context_params"), nb::kw_only(),
          nb::arg("margin"), nb::arg("n_ctx_min"), nb::arg("reserved") = std::map<std::string, size_t>(), R"doc(
        Return parameters with which a model fits into the free memory of the GPUs (common_fit_params).

        Prepares the model and a context a few times, without allocating them. The GIL is released meanwhile.

        Args:
            model: The model, loaded with no_alloc=True and load_mode=LlamaLoadMode.NONE.
            model_params: How it is to be loaded. `n_gpu_layers` has to be negative.
            context_params: The context that has to fit too. With n_ctx=0, a smaller context is preferred to fewer layers.
            margin: Bytes to leave free on each GPU.
            n_ctx_min: Least tokens of the context with n_ctx=0.
            reserved: Bytes to leave free beside the margin, by the name of the device; for a model without GPUs, "CPU".

        Returns:
            `model_params` with other layers, split and buffers if not all layers fit, and the `n_ctx` that fits; 0 for the
            training length.

        Raises:
            ValueError: The model was loaded otherwise, a parameter is out of range, or a device is not a GPU.
            RuntimeError: llama.cpp cannot fit these parameters, with the reason.
        )doc");
}
