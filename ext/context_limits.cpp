#include "context_limits.hpp"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <unistd.h>
#endif

#include "backend.hpp"
#include "errors.hpp"
#include "ggml-cpu.h"
#include "kv_cache_size.hpp"
#include "model_internals.hpp"

void check_n_threads(const char * name, int32_t n_threads) { check_range(name, n_threads, 1, GGML_MAX_N_THREADS); }

void check_threads_available(int32_t n_threads, int32_t n_threads_batch) {
    const int32_t n = n_threads + (n_threads_batch == n_threads ? 0 : n_threads_batch);
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false, failed = false;
    const auto wait = [&] {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [&] { return done; });
    };
    std::vector<std::thread> threads;
    try {
        for (int32_t i = 1; i < n; ++i) {
            threads.emplace_back(wait);
        }
    } catch (const std::system_error &) {
        failed = true;
    }
    {
        const std::lock_guard<std::mutex> lock(mutex);
        done = true;
    }
    changed.notify_all();
    for (std::thread & thread : threads) {
        thread.join();
    }
    if (failed) {
        throw std::runtime_error("cannot start " + std::to_string(n) + " threads: choose a smaller n_threads");
    }
}

void check_threadpool(int poll, int prio) {
    check_range("threadpool_poll", poll, 0, 100);
    check_range("threadpool_prio", prio, GGML_SCHED_PRIO_LOW, GGML_SCHED_PRIO_REALTIME);
}

bool attends_causally(const llama_context_params & params, bool by_default) {
    return params.attention_type == LLAMA_ATTENTION_TYPE_UNSPECIFIED ? by_default
                                                                     : params.attention_type == LLAMA_ATTENTION_TYPE_CAUSAL;
}

void check_embeddings(bool embeddings, int64_t n_outputs_max, int64_t n_ubatch) {
    if (embeddings && n_outputs_max < n_ubatch) {
        throw_value_error("embeddings are outputs of all tokens: n_outputs_max=" + std::to_string(n_outputs_max) +
                          " must not be smaller than n_ubatch=" + std::to_string(n_ubatch));
    }
}

namespace {

int64_t n_ctx_of(const llama_context_params & params, const llama_model * model) {
    return params.n_ctx ? params.n_ctx : llama_model_n_ctx_train(model);
}

void check_sizes(const llama_context_params & params) {
    constexpr int64_t kMaxTokens = INT32_MAX - 1024;
    check_range("n_ctx", params.n_ctx, 0, kMaxTokens);
    check_range("n_batch", params.n_batch, 1, kMaxTokens);
    check_range("n_ubatch", params.n_ubatch, 0, kMaxTokens);
    check_n_threads("n_threads", params.n_threads);
    check_n_threads("n_threads_batch", params.n_threads_batch);
}

void check_sequences(const llama_context_params & params, int64_t n_ctx) {
    int64_t limit = std::min<int64_t>({static_cast<int64_t>(llama_max_parallel_sequences()), n_ctx, params.n_batch});
    if (params.n_outputs_max) {
        limit = std::min<int64_t>(limit, params.n_outputs_max);
    }
    check_range("n_seq_max (limited by n_ctx, n_batch and n_outputs_max)", params.n_seq_max, 1,
                std::max<int64_t>(limit, 1));
}

// llama.cpp prepares the graph of a mean for n_ubatch tokens, and for a multiple of n_seq_max.
void check_pooling(const llama_context_params & params, const llama_model * model, int64_t n_ubatch) {
    const enum llama_pooling_type type =
        params.pooling_type == LLAMA_POOLING_TYPE_UNSPECIFIED ? default_pooling(model) : params.pooling_type;
    if (params.embeddings && type == LLAMA_POOLING_TYPE_MEAN && n_ubatch % params.n_seq_max != 0) {
        throw_value_error("pooling_type MEAN needs an n_ubatch that is a multiple of n_seq_max=" +
                          std::to_string(params.n_seq_max) + ", not " + std::to_string(n_ubatch));
    }
}

} // namespace

void check_context_params(const llama_context_params & params, const llama_model * model, bool causal) {
    check_sizes(params);
    const int64_t n_ctx = n_ctx_of(params, model);
    check_sequences(params, n_ctx);
    const int64_t n_batch =
        std::min<int64_t>(params.n_batch, attends_causally(params, causal) ? n_ctx : GGML_PAD(n_ctx, 256));
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
        throw_value_error("an encoder-decoder model needs kv_unified=True for several sequences");
    }
}

void check_context_memory(const llama_context_params & params, const llama_model * model) {
#ifndef _WIN32
    // Fail early: Linux overcommits, and the OOM killer would end the process when llama.cpp fills the cache with zeros.
    const int64_t n_ctx = n_ctx_of(params, model);
    double needed = 0;
    for (const auto & [device, bytes] : kv_cache_bytes(model, params).value_or(std::map<std::string, int64_t>())) {
        needed += static_cast<double>(bytes);
    }
    const int64_t host = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
    const int64_t total = host + gpu_memory();
    if (host > 0 && needed > static_cast<double>(total)) {
        raise(ErrorType::kMemory,
              "n_ctx=" + std::to_string(n_ctx) + " needs about " + std::to_string(static_cast<int64_t>(needed / 0x1p30)) +
                  " GiB for its KV cache, more than the machine's memory of " + std::to_string(total >> 30) + " GiB");
    }
#endif
}
