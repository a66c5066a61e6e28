// Native locks, and how many of them a thread holds. guard.hpp has the rules.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

#include "process.hpp"

/// How many locks and models this thread holds. Python code that finds one held runs in a callback or a finalizer.
extern thread_local int native_holds;

/// An object that several Python threads may use at once: a mutex, the thread that holds it, and the process whose threads
/// can serve it.
struct Guarded {
    std::mutex mutex;
    std::atomic<std::thread::id> owner{};
    const long process = current_process();

    bool forked() const { return process != current_process(); }

    /// Throws std::runtime_error in a forked child, and if this thread holds the lock already. `what` names the object.
    void check_lockable(const char * what) const;

    /// Waits for the lock and takes it. To be called without the GIL.
    void lock(const char * what);
    void unlock();
};
