// The threads of a context.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml-cpu.h"
#include "llama.h"

/// The ggml thread pools of one context. The destructor frees nothing: in a forked child the threads do not exist.
class ThreadPools {
  public:
    /// `poll` and `prio`: see ggml_threadpool_params.
    ThreadPools(int poll, int prio) : poll_(poll), prio_(prio) {}

    /// Attaches new pools of `n_threads` and `n_threads_batch` threads to a context, in place of the present ones.
    void attach(llama_context * context, int32_t n_threads, int32_t n_threads_batch);
    /// To be called after a computation with the present pools: frees those that they replaced.
    void were_used();
    /// Lets the threads sleep until the next computation, which wakes them. They would wait for it awake for a while.
    void pause();
    /// Frees all pools. To be called after the context is freed.
    void free();

  private:
    ggml_threadpool_t create(int32_t n_threads) const;
    void retire();

    const int poll_, prio_;
    ggml_threadpool_t pool_ = nullptr, batch_pool_ = nullptr; // may be the same
    std::vector<ggml_threadpool_t> replaced_; // llama.cpp's backend refers to them until it computes with other pools
    bool used_ = false;
};
