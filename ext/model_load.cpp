#include "model_load.hpp"

#include <chrono>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "backend.hpp"
#include "errors.hpp"
#include "files.hpp"
#include "guard.hpp"
#include "huge_pages.hpp"
#include "metadata.hpp"
#include "weights_hash.hpp"

namespace {

// What the progress callback of a load needs.
struct Load {
    nb::object on_progress;
    std::optional<nb::python_error> error;
    std::chrono::steady_clock::time_point next_signal_check{};
};

// llama.cpp calls this on the loading thread, without the GIL, for every tensor.
bool on_progress(float progress, void * data) {
    auto & load = *static_cast<Load *>(data);
    if (must_end()) { // no lock is held here, and no caller would see the load fail
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
            throw_value_error("there is no device \"" + name + "\": see devices()");
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
    throw_value_error("there is no buffer type \"" + name + "\"");
}

void copy_text(const std::string & text, char * target, size_t size, const std::string & what) {
    if (text.size() >= size) {
        throw_value_error(what + " is longer than " + std::to_string(size - 1) + " bytes");
    }
    std::memcpy(target, text.c_str(), text.size() + 1);
}

// The list ends with an empty key. No values: an empty list.
std::vector<llama_model_kv_override> to_overrides(const std::map<std::string, MetadataValue> & values) {
    std::vector<llama_model_kv_override> overrides;
    for (const auto & [key, value] : values) {
        llama_model_kv_override item{};
        copy_text(key, item.key, sizeof item.key, "the metadata key \"" + key + "\"");
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
            item.tag = LLAMA_KV_OVERRIDE_TYPE_STR;
            copy_text(std::get<std::string>(value), item.val_str, sizeof item.val_str, "the value of \"" + key + "\"");
        }
        overrides.push_back(item);
    }
    if (!overrides.empty()) {
        overrides.emplace_back();
    }
    return overrides;
}

// Whether attention is causal, which llama.h does not tell.
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

} // namespace

ModelParams::ModelParams(const LlamaModelParams & source)
    : params_(source), devices_(find_devices(source.device_names)), split_(source.split),
      overrides_(to_overrides(source.overrides)) {
    add_buffers(source.buffer_overrides);
    if (split_.size() > llama_max_devices()) {
        throw_value_error("tensor_split has " + std::to_string(split_.size()) + " values, but at most " +
                          std::to_string(llama_max_devices()) + " devices are possible");
    }
    split_.resize(split_.empty() ? 0 : llama_max_devices(), 0.0f);
    params_.devices = devices_.empty() ? nullptr : devices_.data();
    params_.tensor_buft_overrides = buffers_.empty() ? nullptr : buffers_.data();
    params_.tensor_split = split_.empty() ? nullptr : split_.data();
    params_.kv_overrides = overrides_.empty() ? nullptr : overrides_.data();
}

void ModelParams::add_buffers(const std::vector<std::pair<std::string, std::string>> & overrides) {
    constexpr size_t kMaxPattern = 1024; // bytes: std::regex recurses as deep as a pattern is long
    for (const auto & [pattern, type] : overrides) {
        if (pattern.size() > kMaxPattern) {
            throw_value_error("a pattern of tensor_buft_overrides is longer than 1024 bytes");
        }
        buffers_.push_back({pattern.c_str(), find_buffer_type(type)});
    }
    if (!buffers_.empty()) {
        buffers_.push_back({nullptr, nullptr});
    }
}

std::shared_ptr<ModelHandle> load_model(const std::string & path, const LlamaModelParams & source) {
    LogDelivery delivery;
    check_gguf(path);
    refresh_log_level();
    if (source.no_alloc && !source.vocab_only && source.load_mode != LLAMA_LOAD_MODE_NONE) {
        throw_value_error("no_alloc loads nothing: it needs load_mode=LlamaLoadMode.NONE");
    }
    ModelParams params(source);
    Load load{source.on_progress, std::nullopt, {}};
    params.get().progress_callback = on_progress;
    params.get().progress_callback_user_data = &load;

    check_gpus_after_fork();
    clear_logged_errors();
    llama_model * model = nullptr;
    uint64_t weights = 0;
    {
        WithoutGil release;
        check_metadata(path, params.get());
        model = llama_model_load_from_file(path.c_str(), params.get());
        cyllama_enlarge_pages();
        weights = model && !source.vocab_only ? hash_weights(path) : 0;
    }
    if (!model) {
        if (load.error) {
            throw std::move(*load.error);
        }
        raise(ErrorType::kRuntime, "cannot load " + path + ": " + logged_errors("stopped by progress_callback"));
    }
    auto handle = std::make_shared<ModelHandle>(model, path, weights, !source.vocab_only && !source.no_alloc,
                                                !source.vocab_only && source.no_alloc, is_causal(model, source));
    check_vocabulary(llama_model_get_vocab(model));
    return handle;
}
