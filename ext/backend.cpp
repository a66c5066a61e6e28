#include "backend.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "build-info.h"
#include "conversion.hpp"
#include "llama.h"
#include "modules.hpp"
#include "process.hpp"

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

static void init_build(nb::module_ & m) {
    m.def(
        "system_info", [] { return to_str(llama_print_system_info()); },
        "Return the CPU features and options of this build as text (llama_print_system_info).");
    m.def(
        "build_info", [] { return std::string(llama_build_info()); },
        "Return the name of the llama.cpp build, such as \"b10605-b10605\".");
    m.def("build_number", [] { return llama_build_number(); }, "Return the number of the llama.cpp build.");
    m.def("compiler", [] { return std::string(llama_compiler()); }, "Return the compiler that built llama.cpp.");
    m.def("supports_gpu_offload", &llama_supports_gpu_offload, "Return whether layers can be kept on a GPU.");
    m.def("supports_mmap", &llama_supports_mmap, "Return whether model files can be memory-mapped.");
    m.def("supports_mlock", &llama_supports_mlock, "Return whether models can be locked into memory.");
    m.def("supports_rpc", &llama_supports_rpc, "Return whether models can run on remote machines.");
    m.def("max_devices", &llama_max_devices, "Return the most devices that a model can use.");
    m.def("max_parallel_sequences", &llama_max_parallel_sequences, "Return the largest `n_seq_max` of a context.");
}

void init_backend(nb::module_ & m) {
    llama_backend_init();
    nb::class_<LlamaDevice>(m, "LlamaDevice",
                            "A device that computes: a CPU, a GPU or an accelerator (ggml_backend_dev_t).")
        .def_ro("name", &LlamaDevice::name, "Name for LlamaModelParams.devices.")
        .def_ro("description", &LlamaDevice::description, "Name of the hardware.")
        .def_ro("type", &LlamaDevice::type, "\"cpu\", \"gpu\", \"igpu\", \"accel\" or \"other\".")
        .def_ro("backend", &LlamaDevice::backend, "Name of the ggml backend that drives it.")
        .def_ro("memory_free", &LlamaDevice::memory_free, "Free memory, in bytes.")
        .def_ro("memory_total", &LlamaDevice::memory_total, "Memory, in bytes.");
    m.def("devices", &devices, R"doc(
        Return the devices that models can run on.

        Raises:
            RuntimeError: In a child of os.fork() whose parent has used a GPU.
        )doc");
    m.def("backends", &backends, "Return the names of the ggml backends in this build.");
    init_build(m);
}
