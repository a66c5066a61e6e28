#include "context.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <limits>
#include <numeric>
#include <set>
#include <system_error>
#include <thread>

#ifndef _WIN32
#include <unistd.h>
#endif

#include "backend.hpp"
#include "grammar_limit.hpp"
#include "model_internals.hpp"
#include "sampler.hpp"

// ---------------------------------------------------------------------------------------------------------------- handle

static bool attends_causally(const LlamaContextParams & params, const ModelHandle & model) {
    return params.attention_type == LLAMA_ATTENTION_TYPE_UNSPECIFIED ? model.causal
                                                                     : params.attention_type == LLAMA_ATTENTION_TYPE_CAUSAL;
}

ContextHandle::ContextHandle(std::shared_ptr<ModelHandle> model, llama_context * context, const LlamaContextParams & params,
                             std::shared_ptr<ContextHandle> other, GraphSamplers samplers)
    : context(context), model(std::move(model)), other(std::move(other)), samplers(std::move(samplers)),
      threadpool_poll(params.threadpool_poll), threadpool_prio(params.threadpool_prio) {
    const llama_model * m = llama_get_model(context);
    has_encoder = llama_model_has_encoder(m);
    embeddings = params.embeddings;
    causal = attends_causally(params, *this->model);
    n_positions = n_learned_positions(m);
    kv_unified = params.kv_unified;
    // Shifting positions rotates K: ggml aborts for BF16, and llama.cpp crashes for quantized K with some sizes of heads.
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
        free();
    }
}

void ContextHandle::free() {
    llama_free(context);
    context = nullptr;
    adapters = {};
    retire_threadpools();
    threadpools_were_used();
    outputs.clear();
}

void ContextHandle::retire_threadpools() {
    for (ggml_threadpool_t pool : {threadpool, threadpool_batch != threadpool ? threadpool_batch : nullptr}) {
        if (threadpools_used) {
            old_threadpools.push_back(pool);
        } else {
            ggml_threadpool_free(pool);
        }
    }
    threadpool = threadpool_batch = nullptr;
    threadpools_used = false;
}

void ContextHandle::threadpools_were_used() {
    for (ggml_threadpool_t pool : old_threadpools) {
        ggml_threadpool_free(pool);
    }
    old_threadpools.clear();
    threadpools_used = true;
}

void attach_threadpools(ContextHandle & handle, int32_t n_threads, int32_t n_threads_batch) {
    const auto create = [&](int32_t n) {
        ggml_threadpool_params params = ggml_threadpool_params_default(n);
        params.poll = static_cast<uint32_t>(handle.threadpool_poll);
        params.prio = static_cast<ggml_sched_priority>(handle.threadpool_prio);
        return ggml_threadpool_new(&params);
    };
    llama_detach_threadpool(handle.context);
    handle.retire_threadpools();
    handle.threadpool = create(n_threads);
    handle.threadpool_batch = n_threads_batch == n_threads ? handle.threadpool : create(n_threads_batch);
    llama_set_n_threads(handle.context, n_threads, n_threads_batch);
    llama_attach_threadpool(handle.context, handle.threadpool, handle.threadpool_batch);
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
        throw nb::value_error(("sequence id " + std::to_string(seq_id) +
                               " is out of range: the context was created with "
                               "n_seq_max=" +
                               std::to_string(handle_->n_seq_max))
                                  .c_str());
    }
}

int32_t ContextUse::check_output(int32_t index) const {
    const auto & outputs = handle_->outputs;
    const auto n = static_cast<int32_t>(outputs.size());
    int32_t i = index;
    if (index < 0) { // count from the end
        int32_t left = index;
        for (i = n - 1; i >= 0; --i) {
            if (outputs[i] != ContextHandle::kNoOutput && ++left == 0) {
                break;
            }
        }
    }
    if (i < 0 || i >= n || outputs[i] == ContextHandle::kNoOutput) {
        const auto n_outputs = n - std::count(outputs.begin(), outputs.end(), ContextHandle::kNoOutput);
        throw nb::index_error(("token " + std::to_string(index) + " of the last batch has no output: the batch had " +
                               std::to_string(n) + " tokens, " + std::to_string(n_outputs) + " of them with logits")
                                  .c_str());
    }
    return i;
}

// -------------------------------------------------------------------------------------------------------------- creation

namespace {

constexpr int32_t kMaxThreads = GGML_MAX_N_THREADS;

void check_range(const char * name, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high) {
        throw nb::value_error((std::string(name) + " must be from " + std::to_string(low) + " to " + std::to_string(high) +
                               ", not " + std::to_string(value))
                                  .c_str());
    }
}

void check_embeddings(bool embeddings, int64_t n_outputs_max, int64_t n_ubatch) {
    if (embeddings && n_outputs_max < n_ubatch) {
        throw nb::value_error(("embeddings are outputs of all tokens: n_outputs_max=" + std::to_string(n_outputs_max) +
                               " must not be smaller than n_ubatch=" + std::to_string(n_ubatch))
                                  .c_str());
    }
}

// Refuses a KV cache larger than the machine's memory, that of its GPUs included: Linux would grant it on credit, and kill the
// process when llama.cpp fills it with zeros.
void check_memory(const LlamaContextParams & params, const llama_model * model) {
#ifndef _WIN32
    const int64_t n_ctx = params.n_ctx ? params.n_ctx : llama_model_n_ctx_train(model);
    const std::optional<int64_t> needed = kv_cache_bytes(model, n_ctx, params.type_k, params.type_v);
    const int64_t host = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
    const int64_t total = host + gpu_memory();
    if (needed && host > 0 && *needed > total) {
        const std::string text = "n_ctx=" + std::to_string(n_ctx) + " needs about " + std::to_string(*needed >> 30) +
                                 " GiB for its KV cache, more than the machine's memory of " + std::to_string(total >> 30) +
                                 " GiB";
        PyErr_SetString(PyExc_MemoryError, text.c_str());
        throw nb::python_error();
    }
#endif
}

// llama.cpp prepares the graph of a mean for n_ubatch tokens, and for a multiple of n_seq_max.
void check_pooling(const LlamaContextParams & params, const llama_model * model, int64_t n_ubatch) {
    const enum llama_pooling_type type =
        params.pooling_type == LLAMA_POOLING_TYPE_UNSPECIFIED ? default_pooling(model) : params.pooling_type;
    if (params.embeddings && type == LLAMA_POOLING_TYPE_MEAN && n_ubatch % params.n_seq_max != 0) {
        throw nb::value_error(("pooling_type MEAN needs an n_ubatch that is a multiple of n_seq_max=" +
                               std::to_string(params.n_seq_max) + ", not " + std::to_string(n_ubatch))
                                  .c_str());
    }
}

// Refuses what llama.cpp would answer with an abort of the process.
void check_params(const LlamaContextParams & params, const llama_model * model, const ModelHandle & handle) {
    constexpr int64_t kMaxTokens = INT32_MAX - 1024;
    check_range("n_ctx", params.n_ctx, 0, kMaxTokens);
    check_range("n_batch", params.n_batch, 1, kMaxTokens);
    check_range("n_ubatch", params.n_ubatch, 0, kMaxTokens);
    check_range("n_threads", params.n_threads, 1, kMaxThreads);
    check_range("n_threads_batch", params.n_threads_batch, 1, kMaxThreads);
    check_range("threadpool_poll", params.threadpool_poll, 0, 100);
    check_range("threadpool_prio", params.threadpool_prio, GGML_SCHED_PRIO_LOW, GGML_SCHED_PRIO_REALTIME);
    const int64_t n_ctx = params.n_ctx ? params.n_ctx : llama_model_n_ctx_train(model);
    int64_t n_seq_limit = std::min<int64_t>({static_cast<int64_t>(llama_max_parallel_sequences()), n_ctx, params.n_batch});
    if (params.n_outputs_max) {
        n_seq_limit = std::min<int64_t>(n_seq_limit, params.n_outputs_max);
    }
    check_range("n_seq_max (limited by n_ctx, n_batch and n_outputs_max)", params.n_seq_max, 1,
                std::max<int64_t>(n_seq_limit, 1));
    const int64_t n_batch =
        std::min<int64_t>(params.n_batch, attends_causally(params, handle) ? n_ctx : GGML_PAD(n_ctx, 256));
    const int64_t n_ubatch = params.n_ubatch ? std::min<int64_t>(params.n_ubatch, n_batch) : n_batch;
    check_embeddings(params.embeddings, params.n_outputs_max ? params.n_outputs_max : n_ubatch, n_ubatch);
    if (rolls_states_back(model)) {
        check_range("n_rs_seq (limited by n_ubatch - 2)", params.n_rs_seq, 0, std::max<int64_t>(n_ubatch - 2, 0));
    }
    check_pooling(params, model, n_ubatch);
    if (!llama_model_has_decoder(model) && !llama_model_has_encoder(model)) {
        throw std::runtime_error("the model has neither a decoder nor an encoder");
    }
    if (llama_model_has_encoder(model) && llama_model_has_decoder(model) && params.n_seq_max > 1 && !params.kv_unified) {
        throw nb::value_error("an encoder-decoder model needs kv_unified=True for several sequences");
    }
}

// ggml aborts where a thread cannot be had: see that there are enough before it asks for them.
void check_threads(int32_t n) {
    std::promise<void> done;
    const std::shared_future<void> end = done.get_future().share();
    std::vector<std::thread> threads;
    bool failed = false;
    try {
        for (int32_t i = 1; i < n; ++i) {
            threads.emplace_back([end] { end.wait(); });
        }
    } catch (const std::system_error &) {
        failed = true;
    }
    done.set_value();
    for (std::thread & thread : threads) {
        thread.join();
    }
    if (failed) {
        throw std::runtime_error("cannot start " + std::to_string(n) + " threads: choose a smaller n_threads");
    }
}

template <class... Args> bool call_back(ContextHandle & handle, PyObject * callback, bool on_error, const Args &... args) {
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
            throw nb::type_error("samplers must be a list of pairs of a sequence id and a LlamaSampler");
        }
        check_range("the sequence id of a sampler", entry.first, 0, static_cast<int64_t>(params.n_seq_max) - 1);
        const auto & handle = entry.second->handle;
        if (std::any_of(samplers.begin(), samplers.end(), [&](const auto & other) { return other.second == handle; }) ||
            !samplers.emplace(entry.first, handle).second) {
            throw nb::value_error("every sequence needs a sampler chain of its own: use clone()");
        }
    }
    return samplers;
}

std::set<SamplerHandle *> by_address(const GraphSamplers & samplers) {
    std::set<SamplerHandle *> result;
    for (const auto & [seq_id, sampler] : samplers) {
        result.insert(sampler.get());
    }
    return result;
}

void create_context(LlamaContext * self, const LlamaModel & model_object, const LlamaContextParams * params_object) {
    LogDelivery delivery;
    refresh_log_level();
    // The context keeps a copy: changing the parameters afterwards must not free a callback in use.
    nb::object own = nb::cast(params_object ? *params_object : LlamaContextParams());
    const auto & source = nb::cast<const LlamaContextParams &>(own);
    GraphSamplers samplers = to_graph_samplers(source); // runs Python code, before anything is locked
    const LlamaContext * other = nullptr;
    if (!source.other_context.is_none() && !nb::try_cast(source.other_context, other)) {
        throw nb::type_error("ctx_other must be a LlamaContext");
    }
    std::optional<ContextUse> other_use;
    if (other) {
        other_use.emplace(*other);
        if ((*other_use)->other) {
            throw nb::value_error("a context that has a ctx_other cannot be one");
        }
    }
    ModelUse model(model_object.handle);
    if (!model_object.handle->has_weights) {
        throw std::runtime_error("the model was loaded without its weights (vocab_only or no_alloc): it cannot compute");
    }
    check_params(source, model.get(), *model_object.handle);
    check_memory(source, model.get());

    std::vector<std::unique_ptr<Guard>> guards; // held until the context exists
    for (SamplerHandle * sampler : by_address(samplers)) {
        guards.push_back(std::make_unique<Guard>(*sampler, "sampler", true));
        check_graph_sampler(*sampler, model.n_vocab());
    }
    std::vector<llama_sampler_seq_config> configs;
    for (const auto & [seq_id, sampler] : samplers) {
        sampler->in_graph = true; // for good: llama.cpp prepares a chain for one graph only, even if that fails
        configs.push_back({seq_id, sampler->sampler});
    }

    llama_context_params params = source;
    params.samplers = configs.empty() ? nullptr : configs.data();
    params.n_samplers = configs.size();
    params.ctx_other = other_use ? other_use->get() : nullptr;
    params.abort_callback = nullptr; // set below, once there is a handle to pass
    params.cb_eval = source.on_eval.is_none() ? nullptr : on_eval;
    // llama.cpp takes the callback's data at creation only, so that the handle has to exist before the context.
    auto * storage = static_cast<ContextHandle *>(::operator new(sizeof(ContextHandle)));
    params.cb_eval_user_data = storage;

    clear_logged_errors();
    llama_context * context = nullptr;
    try {
        WithoutGil release;
        AdaptersUse adapters(model_object.handle->adapters);
        check_threads(params.n_threads + (params.n_threads_batch == params.n_threads ? 0 : params.n_threads_batch));
        context = llama_init_from_model(model.get(), params);
    } catch (...) {
        ::operator delete(storage);
        throw;
    }
    if (!context) {
        ::operator delete(storage);
        throw std::runtime_error("cannot create a context of n_ctx=" + std::to_string(params.n_ctx) + ": " +
                                 logged_errors("llama.cpp gave no reason"));
    }
    std::shared_ptr<ContextHandle> handle(new (storage) ContextHandle(model_object.handle, context, source,
                                                                      other_use ? other_use->handle() : nullptr,
                                                                      std::move(samplers)));
    handle->on_abort = source.on_abort.is_none() ? nullptr : source.on_abort.ptr();
    handle->on_eval = source.on_eval.is_none() ? nullptr : source.on_eval.ptr();
    llama_set_abort_callback(context, on_abort, handle.get());
    attach_threadpools(*handle, params.n_threads, params.n_threads_batch);
    model_object.handle->add_context(handle);
    new (self) LlamaContext{std::move(handle), std::move(own)};
}

// -------------------------------------------------------------------------------------------------------------- decoding

std::string sequence_positions(const ContextUse & use) {
    std::string text;
    for (llama_seq_id s = 0; s < use->n_seq_max && s < 8; ++s) {
        text += (s ? ", " : "") + std::to_string(s) + ": " +
                std::to_string(llama_memory_seq_pos_max(llama_get_memory(use.get()), s));
    }
    return text;
}

// Refuses what llama.cpp would answer with an abort of the process. Returns what `ContextHandle::outputs` will be.
std::vector<int16_t> check_batch(const ContextUse & use, const llama_batch & batch, bool encode) {
    if (batch.n_tokens == 0) {
        throw nb::value_error("the batch is empty");
    }
    if (!encode && use->has_encoder && llama_model_has_decoder(llama_get_model(use.get())) && !use->encoded) {
        throw nb::value_error("an encoder-decoder model needs encode() before decode()");
    }
    const auto n_batch = static_cast<int32_t>(llama_n_batch(use.get()));
    const auto n_ubatch = static_cast<int32_t>(llama_n_ubatch(use.get()));
    const bool no_memory = !llama_get_memory(use.get());
    const bool whole = encode || !use->causal || no_memory;
    if (batch.n_tokens > (whole ? std::min(n_batch, n_ubatch) : n_batch)) {
        throw nb::value_error(("the batch has " + std::to_string(batch.n_tokens) + " tokens, more than " +
                               (whole ? "n_ubatch=" + std::to_string(n_ubatch) : "n_batch=" + std::to_string(n_batch)) +
                               ": split it, or create the context with a larger one")
                                  .c_str());
    }
    // llama.cpp would say that the cache is full
    const bool streams = !use->kv_unified && use->n_seq_max > 1 && !llama_model_is_recurrent(llama_get_model(use.get()));
    const bool output_all = use->embeddings || encode || no_memory;
    int32_t n_outputs = 0;
    std::vector<int16_t> outputs(static_cast<size_t>(batch.n_tokens), ContextHandle::kNoOutput);
    for (int32_t i = 0; i < batch.n_tokens; ++i) {
        if (batch.token[i] < 0 || batch.token[i] >= use->n_vocab) {
            throw nb::value_error(("token id " + std::to_string(batch.token[i]) +
                                   " is out of range: the vocabulary has ids 0 to " + std::to_string(use->n_vocab - 1))
                                      .c_str());
        }
        if (use->n_positions && batch.pos[i] >= use->n_positions) {
            throw nb::value_error(("position " + std::to_string(batch.pos[i]) +
                                   " is out of range: the model has learned embeddings of " +
                                   std::to_string(use->n_positions) + " positions, and no sequence can be longer")
                                      .c_str());
        }
        for (int32_t s = 0; s < batch.n_seq_id[i]; ++s) {
            use.check_sequence(batch.seq_id[i][s]);
        }
        if (batch.n_seq_id[i] > 1 && streams) {
            throw nb::value_error("a token can belong to several sequences only in a context with kv_unified=True");
        }
        if (!batch.logits[i] && !output_all) {
            continue;
        }
        ++n_outputs;
        outputs[i] = ContextHandle::kLogits;
        for (int32_t s = 0; s < batch.n_seq_id[i] && !use->samplers.empty() && !encode; ++s) {
            if (use->samplers.count(batch.seq_id[i][s])) {
                if (batch.n_seq_id[i] > 1) {
                    throw nb::value_error(
                        "a token with an output belongs to several sequences, and one of them is sampled in "
                        "the graph (LlamaContextParams.samplers)");
                }
                outputs[i] = static_cast<int16_t>(batch.seq_id[i][s]);
            }
        }
    }
    if (n_outputs > use->n_outputs_max) {
        throw nb::value_error(("the batch asks for the outputs of " + std::to_string(n_outputs) +
                               " tokens, but the context has space for n_outputs_max=" + std::to_string(use->n_outputs_max))
                                  .c_str());
    }
    return outputs;
}

// Locks the samplers that the graph runs, without the GIL.
class GraphSamplersLock {
  public:
    explicit GraphSamplersLock(const GraphSamplers & samplers) : samplers_(by_address(samplers)) {
        for (SamplerHandle * sampler : samplers_) {
            sampler->lock("sampler");
        }
    }
    ~GraphSamplersLock() {
        for (SamplerHandle * sampler : samplers_) {
            sampler->unlock();
        }
    }
    GraphSamplersLock(const GraphSamplersLock &) = delete;
    GraphSamplersLock & operator=(const GraphSamplersLock &) = delete;

  private:
    const std::set<SamplerHandle *> samplers_;
};

// Runs llama_decode or llama_encode below the lock and without the GIL; `then` follows in the same breath on success.
template <class Then>
int run_batch(const ContextUse & use, const llama_batch & batch, bool encode, Then && then) {
    std::vector<int16_t> outputs = check_batch(use, batch, encode);
    use->outputs.clear();
    clear_logged_errors();
    int status = 0;
    {
        WithoutGil release;
        {
            AdaptersUse adapters(use->model->adapters);
            GraphSamplersLock lock(use->samplers);
            QuietWhile quiet(use->abort);
            try {
                status = encode ? llama_encode(use.get(), batch) : llama_decode(use.get(), batch);
            } catch (const std::exception & error) {
                use->failed_check = error.what();
                throw;
            }
        }
        if (status == 0) {
            use->threadpools_were_used();
        }
        if (status == 0 && !use->callback_error) {
            use->outputs = std::move(outputs);
            use->encoded = use->encoded || encode;
            then();
        }
    }
    if (use->callback_error) {
        nb::python_error error = std::move(*use->callback_error);
        use->callback_error.reset();
        throw error;
    }
    if (status == -1) {
        throw nb::value_error(("llama.cpp refuses the batch: " + logged_errors("invalid input") +
                               ". Last position by sequence: {" + sequence_positions(use) + "}")
                                  .c_str());
    }
    if (status < 0) {
        throw std::runtime_error("decoding failed with status " + std::to_string(status) + ": " +
                                 logged_errors("out of memory or a failure of the backend"));
    }
    return status;
}

int decode(const LlamaContext & self, LlamaBatch & batch) {
    ContextUse use(self);
    Guard guard(batch, "batch", true);
    return run_batch(use, batch.get(), false, [] {});
}

void encode(const LlamaContext & self, LlamaBatch & batch) {
    ContextUse use(self);
    Guard guard(batch, "batch", true);
    if (!use->has_encoder) {
        throw nb::value_error("the model has no encoder: use decode()");
    }
    if (run_batch(use, batch.get(), true, [] {}) != 0) {
        throw std::runtime_error("encoding was aborted");
    }
}

// By index in the list of samplers: a ValueError where a grammar takes too much work, else a RuntimeError.
using SamplingErrors = std::map<size_t, nb::object>;

SamplingErrors to_exceptions(const std::map<size_t, std::pair<bool, std::string>> & errors) {
    SamplingErrors exceptions;
    for (const auto & [i, error] : errors) {
        exceptions[i] = nb::handle(error.first ? PyExc_ValueError : PyExc_RuntimeError)(to_str(error.second));
    }
    return exceptions;
}

std::tuple<int, std::vector<llama_token>, SamplingErrors> decode_and_sample(
    const LlamaContext & self, LlamaBatch & batch, const std::vector<std::pair<int32_t, LlamaSampler *>> & samplers) {
    // Another thread may change the list, and so free the samplers, as soon as anything is waited for.
    std::vector<std::pair<int32_t, std::shared_ptr<SamplerHandle>>> handles;
    for (const auto & [index, sampler] : samplers) {
        handles.emplace_back(index, sampler ? sampler->handle : throw nb::type_error("a sampler is None"));
    }
    ContextUse use(self);
    Guard guard(batch, "batch", true);
    for (const auto & [index, handle] : handles) {
        if (index < 0 || index >= batch.size() || !(batch.logits()[index] || use->embeddings)) {
            throw nb::index_error(
                ("token " + std::to_string(index) + " of the batch has no logits to sample from").c_str());
        }
    }
    std::vector<llama_token> tokens;
    std::map<size_t, std::pair<bool, std::string>> errors; // and whether a grammar takes too much work
    tokens.reserve(handles.size());
    const int status = run_batch(use, batch.get(), false, [&] {
        for (const auto & [index, handle] : handles) {
            llama_token token = LLAMA_TOKEN_NULL;
            try {
                token = sample(*handle, *use, index);
            } catch (const GrammarLimit & error) {
                errors[tokens.size()] = {true, error.what()};
            } catch (const std::exception & error) { // one generation's misfortune must not be that of the others
                errors[tokens.size()] = {false, error.what()};
            }
            tokens.push_back(token);
        }
    });
    return {status, std::move(tokens), to_exceptions(errors)};
}

// --------------------------------------------------------------------------------------------------------------- outputs

using FloatView = nb::ndarray<nb::memview, float, nb::ndim<1>, nb::c_contig>;

// A copy: llama.cpp's own buffer changes with the next decode.
FloatView copy_floats(const float * source, size_t n) {
    if (!source) {
        throw std::runtime_error("the context has no such output: see LlamaContextParams.embeddings and pooling_type");
    }
    auto * data = new float[n];
    std::copy(source, source + n, data);
    nb::capsule owner(data, [](void * p) noexcept { delete[] static_cast<float *>(p); });
    return FloatView(data, {n}, owner);
}

FloatView get_logits_ith(const LlamaContext & self, int32_t index) {
    ContextUse use(self);
    const int32_t i = use.check_output(index);
    if (use->outputs[i] != ContextHandle::kLogits) {
        throw std::runtime_error(
            "the token was sampled in the graph (LlamaContextParams.samplers): its logits stayed there");
    }
    return copy_floats(llama_get_logits_ith(use.get(), i), static_cast<size_t>(use->n_vocab));
}

using Logprobs = std::pair<double, std::vector<std::pair<llama_token, double>>>; // of the token, and of the likeliest ones

Logprobs get_logprobs_ith(const LlamaContext & self, int32_t index, llama_token token, int32_t n_top) {
    ContextUse use(self);
    const int32_t i = use.check_output(index);
    if (use->outputs[i] != ContextHandle::kLogits) {
        throw std::runtime_error(
            "the token was sampled in the graph (LlamaContextParams.samplers): its logits stayed there");
    }
    check_range("token", token, 0, static_cast<int64_t>(use->n_vocab) - 1);
    check_range("n_top", n_top, 0, use->n_vocab);
    WithoutGil release;
    const float * logits = llama_get_logits_ith(use.get(), i);
    if (!logits) {
        throw std::runtime_error("the context has no logits");
    }
    const auto logit = [&](llama_token id) { // what is no number is compared with nothing: it counts as impossible
        return std::isnan(logits[id]) ? -std::numeric_limits<double>::infinity() : static_cast<double>(logits[id]);
    };
    double largest = logit(0), sum = 0;
    for (llama_token id = 1; id < use->n_vocab; ++id) {
        largest = std::max(largest, logit(id));
    }
    for (llama_token id = 0; id < use->n_vocab; ++id) {
        sum += std::exp(logit(id) - largest);
    }
    const double log_sum = largest + std::log(sum);
    Logprobs result{logit(token) - log_sum, {}};
    if (n_top > 0) {
        std::vector<llama_token> ids(static_cast<size_t>(use->n_vocab));
        std::iota(ids.begin(), ids.end(), 0);
        const auto likelier = [&](llama_token a, llama_token b) {
            return logit(a) != logit(b) ? logit(a) > logit(b) : a < b;
        };
        std::partial_sort(ids.begin(), ids.begin() + n_top, ids.end(), likelier);
        for (auto id = ids.begin(); id != ids.begin() + n_top; ++id) {
            result.second.emplace_back(*id, logit(*id) - log_sum);
        }
    }
    return result;
}

size_t n_embd_out(const ContextUse & use) {
    return static_cast<size_t>(llama_model_n_embd_out(llama_get_model(use.get())));
}

FloatView get_embeddings_ith(const LlamaContext & self, int32_t index) {
    ContextUse use(self);
    const int32_t i = use.check_output(index);
    if (!use->embeddings || llama_pooling_type(use.get()) != LLAMA_POOLING_TYPE_NONE) {
        return copy_floats(nullptr, 0);
    }
    return copy_floats(llama_get_embeddings_ith(use.get(), i), n_embd_out(use));
}

FloatView get_embeddings_seq(const LlamaContext & self, llama_seq_id seq_id) {
    ContextUse use(self);
    use.check_sequence(seq_id);
    const bool rank = llama_pooling_type(use.get()) == LLAMA_POOLING_TYPE_RANK;
    const size_t n = rank ? llama_model_n_cls_out(llama_get_model(use.get())) : n_embd_out(use);
    return copy_floats(llama_get_embeddings_seq(use.get(), seq_id), n);
}

// A property that reads one value of the context.
template <auto function> auto read() {
    return [](const LlamaContext & self) { return function(ContextUse(self).get()); };
}

// ---------------------------------------------------------------------------------------------------- garbage collection

int traverse(PyObject * self, visitproc visit, void * arg) {
    Py_VISIT(Py_TYPE(self));
    if (nb::inst_ready(self)) {
        Py_VISIT(nb::inst_ptr<LlamaContext>(self)->params.ptr());
    }
    return 0;
}

int clear(PyObject * self) {
    auto * context = nb::inst_ptr<LlamaContext>(self);
    if (nb::inst_ready(self)) {
        context->handle->on_abort = nullptr;
        context->handle->on_eval = nullptr;
        context->params = nb::none();
    }
    return 0;
}

PyType_Slot slots[] = {
    {Py_tp_traverse, reinterpret_cast<void *>(traverse)},
    {Py_tp_clear, reinterpret_cast<void *>(clear)},
    {0, nullptr},
};

void close_context(LlamaContext & self) {
    if (self.handle->forked()) {
        return; // the memory is the parent's to free, and its threads do not exist here
    }
    const auto handle = self.handle; // outlives the guard
    Guard guard(*handle, "context");
    WithoutGil release;
    if (handle->context) {
        handle->free();
    }
}

} // namespace

void init_context(nb::module_ & m) {
    nb::class_<LlamaContext> context(
        m, "LlamaContext", nb::type_slots(slots),
        "A KV cache and the threads that compute with it (llama_context).\n\n"
        "Any number of threads may use one: they wait for each other. The GIL is released while anything is computed.\n"
        "A context keeps its model alive. It is a context manager that closes itself.\n\n"
        ">>> context = LlamaContext(model)\n"
        ">>> batch = LlamaBatch(512)\n"
        ">>> batch.add_sequence(model.vocab.tokenize(\"Hello\"))\n"
        ">>> context.decode(batch)\n"
        "0\n"
        ">>> token = LlamaSampler.greedy().sample(context)");
    context
        .def(
            "__init__", &create_context, nb::arg("model"), nb::arg("params") = nb::none(),
            nb::sig("def __init__(self, model: LlamaModel, params: LlamaContextParams | None = None) -> None"),
            "Create a context (llama_init_from_model) with a persistent pool of `n_threads` threads of its own.\n\n"
            "Raises ValueError for a parameter out of range, MemoryError for a KV cache larger than the machine's memory,\n"
            "RuntimeError with llama.cpp's reason if it cannot be created.")
        .def("close", &close_context,
             "Free the KV cache, the buffers and the threads at once; waits for a decode in another thread. Closing a\n"
             "closed context does nothing; every other use raises RuntimeError.")
        .def_prop_ro(
            "closed",
            [](const LlamaContext & self) {
                Guard guard(*self.handle, "context");
                return self.handle->context == nullptr;
            },
            "Whether it, or its model, was closed.")
        .def(
            "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> LlamaContext"))
        .def(
            "__exit__", [](nb::object self, nb::args) { self.attr("close")(); },
            nb::sig("def __exit__(self, *args: object) -> None"))
        .def(
            "decode", &decode, nb::arg("batch"),
            "Evaluate a batch (llama_decode).\n\n"
            "Returns 0, or 1 if the KV cache has no space for it (nothing changed), or 2 if it was aborted (the sequences\n"
            "may have lost positions: see seq_pos_max). Raises ValueError for a batch that cannot be evaluated, such as one\n"
            "with a token id out of range or with positions that do not follow the sequence's last one.")
        .def(
            "decode_and_sample", &decode_and_sample, nb::arg("batch"), nb::arg("samplers"),
            nb::sig("def decode_and_sample(self, batch: LlamaBatch, "
                    "samplers: collections.abc.Sequence[tuple[int, LlamaSampler]]) "
                    "-> tuple[int, list[int], dict[int, Exception]]"),
            "Evaluate a batch and sample from it, without taking the GIL in between.\n\n"
            "`samplers` pairs the index of a token in the batch, which must have logits, with the sampler to use; several\n"
            "samplers may use the same token. Returns the status of decode(), one token for each sampler, none if the status\n"
            "is not 0, and why samplers failed, by their index in the list: their token is -1. That is a ValueError where a\n"
            "grammar takes too much work, and a RuntimeError else.")
        .def("encode", &encode, nb::arg("batch"),
             "Evaluate a batch with the encoder of an encoder-decoder model (llama_encode).")
        .def(
            "abort", [](const LlamaContext & self) { self.handle->abort.store(true); },
            "Make the decode that runs in another thread, and every later one, return 2 as soon as possible (on the CPU),\n"
            "until clear_abort(). Never waits.")
        .def(
            "clear_abort", [](const LlamaContext & self) { self.handle->abort.store(false); }, "Undo abort().")
        .def("get_logits_ith", &get_logits_ith, nb::arg("i") = -1,
             nb::sig("def get_logits_ith(self, i: int = -1) -> memoryview"),
             "Logits of token `i` of the last batch, or of the -i-th last output: a copy, float32 of shape (n_vocab,).\n\n"
             "Raises IndexError if that token has none.")
        .def(
            "get_logprobs_ith", &get_logprobs_ith, nb::arg("i"), nb::arg("token"), nb::arg("n_top") = 0,
            "Natural logarithms of probabilities by the model's own logits, before any sampler: that of `token` after token\n"
            "`i` of the last batch, and pairs of the `n_top` likeliest tokens and theirs, most likely first.\n\n"
            "One pass over the vocabulary, without the GIL. Indices and errors are those of get_logits_ith().")
        .def("get_embeddings_ith", &get_embeddings_ith, nb::arg("i") = -1,
             nb::sig("def get_embeddings_ith(self, i: int = -1) -> memoryview"),
             "Embedding of one token, without pooling: a copy, float32 of shape (n_embd_out,).")
        .def("get_embeddings_seq", &get_embeddings_seq, nb::arg("seq_id") = 0,
             nb::sig("def get_embeddings_seq(self, seq_id: int = 0) -> memoryview"),
             "Pooled embedding of a sequence of the last batch, or the scores of a rank model: a copy, float32.")
        .def_prop_ro("n_ctx", read<llama_n_ctx>(), "Tokens that fit, padded by llama.cpp.")
        .def_prop_ro("n_ctx_seq", read<llama_n_ctx_seq>(), "Tokens that fit in one sequence.")
        .def_prop_ro("n_batch", read<llama_n_batch>(), "Most tokens of one decode.")
        .def_prop_ro("n_ubatch", read<llama_n_ubatch>(), "Most tokens computed at once.")
        .def_prop_ro("n_seq_max", read<llama_n_seq_max>(), "Number of sequences.")
        .def_prop_ro("n_rs_seq", read<llama_n_rs_seq>(), "Snapshots of the recurrent state per sequence.")
        .def_prop_ro("n_threads", read<llama_n_threads>(), "Threads for single tokens.")
        .def_prop_ro("n_threads_batch", read<llama_n_threads_batch>(), "Threads for batches.")
        .def_prop_ro("pooling_type", read<llama_pooling_type>(), "How embeddings are pooled.")
        .def_prop_ro(
            "has_memory", [](const LlamaContext & self) { return llama_get_memory(ContextUse(self).get()) != nullptr; },
            "Whether it remembers what was decoded; models that only make embeddings do not.")
        .def(
            "set_n_threads",
            [](const LlamaContext & self, int32_t n_threads, int32_t n_threads_batch) {
                ContextUse use(self);
                check_range("n_threads", n_threads, 1, kMaxThreads);
                check_range("n_threads_batch", n_threads_batch, 1, kMaxThreads);
                WithoutGil release;
                check_threads(n_threads + (n_threads_batch == n_threads ? 0 : n_threads_batch));
                attach_threadpools(*use, n_threads, n_threads_batch);
            },
            nb::arg("n_threads"), nb::arg("n_threads_batch"), "Replace the thread pools.")
        .def(
            "set_embeddings",
            [](const LlamaContext & self, bool embeddings) {
                ContextUse use(self);
                check_embeddings(embeddings, use->n_outputs_max, llama_n_ubatch(use.get()));
                use->embeddings = embeddings;
                llama_set_embeddings(use.get(), embeddings);
            },
            nb::arg("embeddings"), "Whether decode() computes embeddings.")
        .def(
            "set_causal_attn",
            [](const LlamaContext & self, bool causal_attn) {
                ContextUse use(self);
                use->causal = causal_attn;
                llama_set_causal_attn(use.get(), causal_attn);
            },
            nb::arg("causal_attn"), "Whether tokens attend to earlier ones only.")
        .def(
            "synchronize",
            [](const LlamaContext & self) {
                ContextUse use(self);
                WithoutGil release;
                llama_synchronize(use.get());
            },
            "Wait until all computations are finished; reading outputs does this by itself.")
        .def("__repr__", [](nb::object self) {
            const auto & context = nb::cast<const LlamaContext &>(self);
            Guard guard(*context.handle, "context");
            llama_context * c = context.handle->context;
            return c ? "<LlamaContext n_ctx=" + std::to_string(llama_n_ctx(c)) +
                           " n_seq_max=" + std::to_string(llama_n_seq_max(c)) + ">"
                     : std::string("<LlamaContext (closed)>");
        });
    init_memory(context);
    init_context_adapters(context);
    init_state(m, context);
}
