#include "threadpools.hpp"

ggml_threadpool_t ThreadPools::create(int32_t n_threads) const {
    ggml_threadpool_params params = ggml_threadpool_params_default(n_threads);
    params.poll = static_cast<uint32_t>(poll_);
    params.prio = static_cast<ggml_sched_priority>(prio_);
    return ggml_threadpool_new(&params);
}

void ThreadPools::attach(llama_context * context, int32_t n_threads, int32_t n_threads_batch) {
    llama_detach_threadpool(context);
    retire();
    pool_ = create(n_threads);
    batch_pool_ = n_threads_batch == n_threads ? pool_ : create(n_threads_batch);
    llama_set_n_threads(context, n_threads, n_threads_batch);
    llama_attach_threadpool(context, pool_, batch_pool_);
}

// Frees the present pools, at once if llama.cpp never computed with them, else after the next computation.
void ThreadPools::retire() {
    for (ggml_threadpool_t pool : {pool_, batch_pool_ != pool_ ? batch_pool_ : nullptr}) {
        if (used_) {
            replaced_.push_back(pool);
        } else {
            ggml_threadpool_free(pool);
        }
    }
    pool_ = batch_pool_ = nullptr;
    used_ = false;
}

void ThreadPools::were_used() {
    for (ggml_threadpool_t pool : replaced_) {
        ggml_threadpool_free(pool);
    }
    replaced_.clear();
    used_ = true;
}

void ThreadPools::pause() {
    for (ggml_threadpool_t pool : {pool_, batch_pool_}) {
        ggml_threadpool_pause(pool);
    }
}

void ThreadPools::free() {
    retire();
    were_used();
}
