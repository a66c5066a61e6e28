// What this build of llama.cpp is and what it can run on.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "backend.hpp"
#include "build-info.h"
#include "guard.hpp"
#include "llama.h"
#include "model.hpp"
#include "modules.hpp"

namespace {

struct LlamaDevice {
    std::string name, description, type, backend;
    size_t memory_free, memory_total;
};

const char * type_name(enum ggml_backend_dev_type type) {
    switch (type) {
        case GGML_BACKEND_DEVICE_TYPE_CPU: return "cpu";
        case GGML_BACKEND_DEVICE_TYPE_GPU: return "gpu";
        case GGML_BACKEND_DEVICE_TYPE_IGPU: return "igpu";
        case GGML_BACKEND_DEVICE_TYPE_ACCEL: return "accel";
        default: return "other";
    }
}

std::vector<LlamaDevice> devices() {
    check_gpus_after_fork();
    std::vector<LlamaDevice> result;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        size_t free = 0, total = 0;
        ggml_backend_dev_memory(device, &free, &total);
        result.push_back({ggml_backend_dev_name(device), ggml_backend_dev_description(device),
                          type_name(ggml_backend_dev_type(device)),
                          ggml_backend_reg_name(ggml_backend_dev_backend_reg(device)), free, total});
    }
    return result;
}

std::vector<std::string> backends() {
    std::vector<std::string> result;
    for (size_t i = 0; i < ggml_backend_reg_count(); ++i) {
        result.emplace_back(ggml_backend_reg_name(ggml_backend_reg_get(i)));
    }
    return result;
}

} // namespace

int64_t gpu_memory() {
    int64_t result = 0;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        if (ggml_backend_dev_type(ggml_backend_dev_get(i)) == GGML_BACKEND_DEVICE_TYPE_GPU) {
            size_t free = 0, total = 0;
            ggml_backend_dev_memory(ggml_backend_dev_get(i), &free, &total);
            result += static_cast<int64_t>(total);
        }
    }
    return result;
}

void check_gpus_after_fork() {
    static const long first_user = current_process();
    if (current_process() != first_user && llama_supports_gpu_offload()) {
        throw std::runtime_error("a GPU cannot be used in a child of os.fork() whose parent used it: start the process by "
                                 "multiprocessing's \"spawn\" method, or load models in children only");
    }
}

void init_backend(nb::module_ & m) {
    llama_backend_init();

    nb::class_<LlamaDevice>(m, "LlamaDevice", "Something that computes.")
        .def_ro("name", &LlamaDevice::name, "As LlamaModelParams.devices takes it.")
        .def_ro("description", &LlamaDevice::description, "The hardware's name.")
        .def_ro("type", &LlamaDevice::type, "\"cpu\", \"gpu\", \"igpu\", \"accel\" or \"other\".")
        .def_ro("backend", &LlamaDevice::backend, "The ggml backend that drives it.")
        .def_ro("memory_free", &LlamaDevice::memory_free, "Free memory in bytes.")
        .def_ro("memory_total", &LlamaDevice::memory_total, "Memory in bytes.");

    m.def("devices", &devices, "The devices that models can run on.");
    m.def("backends", &backends, "Names of the ggml backends in this build.");
    m.def(
        "system_info", [] { return to_str(llama_print_system_info()); },
        "The CPU features and options of this build (llama_print_system_info).");
    m.def("build_info", [] { return std::string(llama_build_info()); }, "The llama.cpp build, such as \"b10605-b10605\".");
    m.def("build_number", [] { return llama_build_number(); }, "The number of the llama.cpp build.");
    m.def("compiler", [] { return std::string(llama_compiler()); }, "The compiler that built llama.cpp.");
    m.def("supports_gpu_offload", &llama_supports_gpu_offload, "Whether layers can be kept on a GPU.");
    m.def("supports_mmap", &llama_supports_mmap, "Whether model files can be memory-mapped.");
    m.def("supports_mlock", &llama_supports_mlock, "Whether models can be locked into memory.");
    m.def("supports_rpc", &llama_supports_rpc, "Whether models can run on remote machines.");
    m.def("max_devices", &llama_max_devices, "Most devices that a model can use.");
    m.def("max_parallel_sequences", &llama_max_parallel_sequences, "Largest n_seq_max of a context.");
    m.attr("LLAMA_STATE_SEQ_FLAGS_NONE") = LLAMA_STATE_SEQ_FLAGS_NONE;
    m.attr("LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY") = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
}
