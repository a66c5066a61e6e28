#include "context.hpp"

#include <nanobind/stl/pair.h>

#include <algorithm>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "context_limits.hpp"
#include "conversion.hpp"
#include "errors.hpp"
#include "huge_pages.hpp"
#include "model_internals.hpp"
#include "params.hpp"
#include "sampler.hpp"

std::set<SamplerHandle *> by_address(const GraphSamplers & samplers) {
    std::set<SamplerHandle *> result;
    for (const auto & [seq_id, sampler] : samplers) {
        result.insert(sampler.get());
    }
    return result;
}

ContextHandle::ContextHandle(std::shared_ptr<ModelHandle> model, llama_context * context, const LlamaContextParams & params,
                             std::shared_ptr<ContextHandle> other, GraphSamplers samplers)
    : context(context), model(std::move(model)), other(std::move(other)), samplers(std::move(samplers)),
      threadpools(params.threadpool_poll, params.threadpool_prio) {
    const llama_model * m = llama_get_model(context);
    has_encoder = llama_model_has_encoder(m);
    embeddings = params.embeddings;
    causal = attends_causally(params, this->model->causal);
    n_positions = n_learned_positions(m);
    kv_unified = params.kv_unified;
    // To shift positions rotates K: ggml aborts for BF16, and llama.cpp crashes for quantized K with some sizes of heads.
    can_shift = llama_get_memory(context) && llama_memory_can_shift(llama_get_memory(context)) &&
                (params.type_k == GGML_TYPE_F16 || params.type_k == GGML_TYPE_F32);
    n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(m));
    n_seq_max = static_cast<int32_t>(llama_n_seq_max(context));
    const uint32_t n_batch = llama_n_batch(context);
    n_outputs_max =
        static_cast<int32_t>(params.n_outputs_max == 0 || has_encoder ? n_batch : std::min(params.n_outputs_max, n_batch));
}

ContextHandle::~ContextHandle() {
    if (!forked()) { // a forked child has none of the threads that freeing would wait for
        ContextHandle::free();
    }
}

void ContextHandle::free() {
    llama_free(context);
    context = nullptr;
    adapters = {};
    threadpools.free();
    outputs.clear();
}

ContextUse::ContextUse(const LlamaContext & context)
    : handle_(context.handle),
      other_guard_(handle_->other ? std::make_optional<Guard>(*handle_->other, "context") : std::nullopt),
      guard_(*handle_, "context", handle_->other != nullptr) {
    if (!handle_->context) {
        throw std::runtime_error("the context is closed");
    }
    if (!handle_->failed_check.empty()) {
        throw std::runtime_error("the context cannot be used any more, only closed: " + handle_->failed_check);
    }
    if (handle_->other && !handle_->other->context) {
        throw std::runtime_error("the context that this one depends on (ctx_other) is closed");
    }
}

void ContextUse::check_sequence(llama_seq_id seq_id) const {
    if (seq_id < 0 || seq_id >= handle_->n_seq_max) {
        throw_value_error("sequence id " + std::to_string(seq_id) +
                          " is out of range: the context was created with n_seq_max=" + std::to_string(handle_->n_seq_max));
    }
}

int32_t ContextUse::check_output(int32_t index) const {
    const auto & outputs = handle_->outputs;
    const auto n = static_cast<int32_t>(outputs.size());
    int32_t i = index;
    if (index < 0) { // counts from the end
        int32_t left = index;
        for (i = n - 1; i >= 0; --i) {
            if (outputs[i] != ContextHandle::kNoOutput && ++left == 0) {
                break;
            }
        }
    }
    if (i < 0 || i >= n || outputs[i] == ContextHandle::kNoOutput) {
        const auto n_outputs = n - std::count(outputs.begin(), outputs.end(), ContextHandle::kNoOutput);
        throw_index_error("token " + std::to_string(index) + " of the last batch has no output: the batch had " +
                          std::to_string(n) + " tokens, " + std::to_string(n_outputs) + " of them with logits");
    }
    return i;
}

namespace {

template <class... Args>
bool call_back(ContextHandle & handle, PyObject * callback, bool on_error, const Args &... args) {
    try {
        return call_python([&] {
            const int result = PyObject_IsTrue(nb::handle(callback)(args...).ptr());
            if (result < 0) {
                throw nb::python_error();
            }
            return result != 0;
        });
    } catch (nb::python_error & error) {
        handle.callback_error.emplace(std::move(error));
    }
    return on_error;
}

bool on_abort(void * data) {
    auto & handle = *static_cast<ContextHandle *>(data);
    if (handle.abort.load(std::memory_order_relaxed) || must_end()) {
        return true;
    }
    if (!handle.on_abort || handle.callback_error) {
        return handle.callback_error.has_value();
    }
    WithGil gil;
    return call_back(handle, handle.on_abort, true);
}

bool on_eval(ggml_tensor * tensor, bool ask, void * data) {
    auto & handle = *static_cast<ContextHandle *>(data);
    if (handle.callback_error) {
        return false;
    }
    WithGil gil;
    return call_back(handle, handle.on_eval, false, to_str(ggml_get_name(tensor)), ask);
}

GraphSamplers to_graph_samplers(const LlamaContextParams & params) {
    GraphSamplers samplers;
    if (params.sampler_list.is_none()) {
        return samplers;
    }
    for (nb::handle item : params.sampler_list) {
        std::pair<llama_seq_id, LlamaSampler *> entry;
        if (!nb::try_cast(item, entry) || !entry.second) {
            throw_type_error("samplers must be a list of pairs of a sequence id and a LlamaSampler");
        }
        check_range("the sequence id of a sampler", entry.first, 0, static_cast<int64_t>(params.n_seq_max) - 1);
        const auto & handle = entry.second->handle;
        if (std::any_of(samplers.begin(), samplers.end(), [&](const auto & other) { return other.second == handle; }) ||
            !samplers.emplace(entry.first, handle).second) {
            throw_value_error("every sequence needs a sampler chain of its own: use clone()");
        }
    }
    return samplers;
}

// Whether llama.cpp can run the sampler of that name as a part of a context's graph.
bool runs_in_graph(const std::string & name) {
    static const std::set<std::string> names{"greedy", "dist",     "top-k",      "top-p",    "min-p",
                                             "temp",   "temp-ext", "logit-bias", "penalties"};
    return names.count(name) || name.rfind('?', 0) == 0; // '?': has no effect
}

// Throws for chains that llama.cpp's graphs of samplers answer with an abort, or with wrong tokens.
void check_order(const SamplerHandle & handle) {
    constexpr int kMostSelections = 2; // llama.cpp computes wrong shapes for a third one
    bool in_order = true;              // whether the i-th candidate is token i
    bool in_graph = true;              // false behind a sampler that the graph does not know: the CPU runs the rest
    int n_selections = 0;
    const int n = llama_sampler_chain_n(handle.sampler);
    for (int i = 0; i < n; ++i) {
        const std::string name = llama_sampler_name(llama_sampler_chain_get(handle.sampler, i));
        if (name == "reasoning-budget") {
            throw_value_error("reasoning_budget cannot run in the graph");
        }
        if (name == "dist" && i + 1 < n) {
            throw_value_error("dist in the graph must be the last sampler of its chain");
        }
        if ((name == "logit-bias" || name == "greedy") && !in_order) {
            throw_value_error(name + " in the graph cannot follow top_k, top_p or a temperature of 0");
        }
        in_graph = in_graph && runs_in_graph(name);
        n_selections += in_graph && (name == "top-k" || name == "top-p");
        if (n_selections > kMostSelections) {
            throw_value_error("a chain in the graph can have two of top_k and top_p, not three");
        }
        in_order = in_order && name != "top-k" && name != "top-p" && !(name.rfind("temp", 0) == 0 && handle.top_k == 1);
    }
}

// Throws ValueError unless the sampler can run in the graph of a context with a vocabulary of `n_vocab` tokens.
void check_graph_sampler(const SamplerHandle & handle, int32_t n_vocab) {
    handle.check_usable();
    if (!llama_sampler_chain_get(handle.sampler, 0)) {
        throw_value_error("samplers of a context must be chains of at least one: LlamaSampler.chain([...])");
    }
    if (handle.in_graph) {
        throw_value_error("a sampler chain can belong to one context only, even when that is closed: use clone()");
    }
    handle.check_vocab(n_vocab);
    check_order(handle);
    if (handle.n_candidates > n_vocab) {
        throw_value_error("the k of a top_k in the graph must not exceed the number of candidates that are left");
    }
}

// Locks the context that another one depends on, until that one exists.
void use_other(const LlamaContextParams & params, std::optional<ContextUse> & use) {
    const LlamaContext * other = nullptr;
    if (params.other_context.is_none()) {
        return;
    }
    if (!nb::try_cast(params.other_context, other)) {
        throw_type_error("ctx_other must be a LlamaContext");
    }
    use.emplace(*other);
    if ((*use)->other) {
        throw_value_error("a context that has a ctx_other cannot be one");
    }
}

using SamplerGuards = std::vector<std::unique_ptr<Guard>>;

// Locks samplers that are to run in the graph, and checks that they can.
SamplerGuards guard_samplers(const GraphSamplers & samplers, int32_t n_vocab) {
    SamplerGuards guards;
    for (SamplerHandle * sampler : by_address(samplers)) {
        guards.push_back(std::make_unique<Guard>(*sampler, "sampler", true));
        check_graph_sampler(*sampler, n_vocab);
    }
    return guards;
}

std::vector<llama_sampler_seq_config> to_configs(const GraphSamplers & samplers) {
    std::vector<llama_sampler_seq_config> configs;
    for (const auto & [seq_id, sampler] : samplers) {
        sampler->in_graph = true; // for good: llama.cpp prepares a chain for one graph only, even if that fails
        configs.push_back({seq_id, sampler->sampler});
    }
    return configs;
}

struct Deallocate {
    void operator()(void * storage) const { ::operator delete(storage); }
};
using Storage = std::unique_ptr<void, Deallocate>;

llama_context * init_from_model(const ModelUse & model, AdapterRegistry & registry, const llama_context_params & params) {
    clear_logged_errors();
    llama_context * context = nullptr;
    {
        WithoutGil release;
        AdaptersUse adapters(registry);
        check_threads_available(params.n_threads, params.n_threads_batch);
        context = llama_init_from_model(model.get(), params);
        cyllama_enlarge_pages();
    }
    if (!context) {
        throw std::runtime_error("cannot create a context of n_ctx=" + std::to_string(params.n_ctx) + ": " +
                                 logged_errors("llama.cpp gave no reason"));
    }
    return context;
}

PyObject * object_or_null(const nb::object & object) { return object.is_none() ? nullptr : object.ptr(); }

} // namespace

void create_context(LlamaContext * self, const LlamaModel & model_object, const LlamaContextParams * params_object) {
    LogDelivery delivery;
    refresh_log_level();
    // The context keeps a copy: a change of the parameters must not free a callback in use.
    nb::object copy = nb::cast(params_object ? *params_object : LlamaContextParams());
    const auto & source = nb::cast<const LlamaContextParams &>(copy);
    GraphSamplers samplers = to_graph_samplers(source); // runs Python code, before anything is locked
    std::optional<ContextUse> other;
    use_other(source, other);
    ModelUse model(model_object.handle);
    if (!model_object.handle->has_weights) {
        throw std::runtime_error("the model was loaded without its weights (vocab_only or no_alloc): it cannot compute");
    }
    check_context_params(source, model.get(), model_object.handle->causal);
    check_threadpool(source.threadpool_poll, source.threadpool_prio);
    check_context_memory(source, model.get());
    const SamplerGuards guards = guard_samplers(samplers, model.n_vocab()); // held until the context exists
    std::vector<llama_sampler_seq_config> configs = to_configs(samplers);

    llama_context_params params = source;
    params.samplers = configs.empty() ? nullptr : configs.data();
    params.n_samplers = configs.size();
    params.ctx_other = other ? other->get() : nullptr;
    params.abort_callback = nullptr; // set below, when there is a handle to pass
    params.cb_eval = source.on_eval.is_none() ? nullptr : on_eval;
    // llama.cpp takes the callback's data at creation only: the handle gets its memory before the context exists.
    Storage storage(::operator new(sizeof(ContextHandle)));
    params.cb_eval_user_data = storage.get();
    llama_context * context = init_from_model(model, model_object.handle->adapters, params);
    std::shared_ptr<ContextHandle> handle(
        new (storage.release())
            ContextHandle(model_object.handle, context, source, other ? other->handle() : nullptr, std::move(samplers)));
    handle->on_abort = object_or_null(source.on_abort);
    handle->on_eval = object_or_null(source.on_eval);
    llama_set_abort_callback(context, on_abort, handle.get());
    handle->threadpools.attach(context, params.n_threads, params.n_threads_batch);
    model_object.handle->add_context(handle);
    new (self) LlamaContext{std::move(handle), std::move(copy)};
}
