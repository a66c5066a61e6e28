// Locks and the GIL. Two rules keep this extension free of deadlocks and data races:
//
// 1. Nothing blocks on a native lock while it holds the GIL: a lock that is not free is waited for with the GIL released.
//    (A thread that holds a native lock may wait for the GIL, when a computation ends or a callback begins.)
// 2. Locks are taken in the order context, then sampler; a model's use count is a leaf that is never held while blocking.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include "logging.hpp"

namespace nb = nanobind;

/// The id of this process, which changes in a forked child.
long current_process();

/// What several Python threads may use at once: a mutex, who holds it, and the process whose threads can serve it.
struct Guarded {
    std::mutex mutex;
    std::atomic<std::thread::id> owner{};
    const long process = current_process();

    bool forked() const { return process != current_process(); }

    /// Lock from a thread that holds no GIL.
    void lock(const char * what);
    void unlock();
};

/// Holds a `Guarded` for the length of a scope. Created and destroyed with the GIL held; what llama.cpp logged meanwhile is
/// delivered to Python after the lock is gone.
class Guard {
  public:
    Guard(Guarded & guarded, const char * what);
    ~Guard() { guarded_.unlock(); }
    Guard(const Guard &) = delete;
    Guard & operator=(const Guard &) = delete;

  private:
    LogDelivery delivery_; // first member, so that it is destroyed after the unlock
    Guarded & guarded_;
};
