// Locks and the GIL. These rules keep this extension free of deadlocks and data races:
//
// 1. Nothing blocks on a native lock while it holds the GIL: a lock that is not free is waited for with the GIL released.
//    (A thread that holds a native lock may wait for the GIL, when a computation ends or a callback begins.)
// 2. Locks are taken in the order context, batch, adapters of the model, sampler (samplers by address); a model's use count is a
//    leaf that is never held while blocking.
// 3. Python code that runs below a native lock (a callback, a finalizer that the garbage collector starts) never waits for
//    another one: it gets an exception instead.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include "logging.hpp"

namespace nb = nanobind;

/// The id of this process, which changes in a forked child.
long current_process();

/// Never returns.
[[noreturn]] void sleep_forever();

/// Calls what may wait for the GIL or run Python code. Once the interpreter has shut down, Python before 3.14 ends a daemon
/// thread that does so with pthread_exit, whose unwinding aborts the process in C++ code: let such a thread sleep instead.
template <class Function> decltype(auto) call_python(Function && function) {
#ifdef __GLIBCXX__
    try {
        return function();
    } catch (abi::__forced_unwind &) {
        sleep_forever();
    }
#else
    return function();
#endif
}

/// Daemon threads outlive the interpreter, and what they compute must not outlive the statics that exit() destroys. So the
/// exit of the interpreter waits for the computations in progress, and threads that would begin another one sleep.
void begin_computation();
void end_computation();
/// Whether the interpreter is about to exit and this thread's computation should end; for llama.cpp's callbacks.
bool must_end();
/// Called once, with the GIL held, by the thread that shuts the interpreter down.
void end_computations();

/// Releases the GIL for the length of a scope, which computes (or else only waits for a lock).
class WithoutGil {
  public:
    explicit WithoutGil(bool computes = true) : computes_(computes), state_(PyEval_SaveThread()) {
        if (computes_) {
            begin_computation();
        }
    }
    ~WithoutGil() {
        if (computes_) {
            end_computation();
        }
        call_python([this] { PyEval_RestoreThread(state_); });
    }
    WithoutGil(const WithoutGil &) = delete;
    WithoutGil & operator=(const WithoutGil &) = delete;

  private:
    const bool computes_;
    PyThreadState * state_;
};

/// Takes the GIL for the length of a scope, for a callback of a computation, which pauses meanwhile.
class WithGil {
  public:
    WithGil() {
        end_computation();
        call_python([this] { state_ = PyGILState_Ensure(); });
    }
    ~WithGil() {
        PyGILState_Release(state_);
        begin_computation();
    }
    WithGil(const WithGil &) = delete;
    WithGil & operator=(const WithGil &) = delete;

  private:
    PyGILState_STATE state_;
};

/// How many locks and models this thread holds. Python code that finds one held runs in a callback or a finalizer.
extern thread_local int native_holds;

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
    /// `nested`: the caller holds another lock, in the order of rule 2.
    Guard(Guarded & guarded, const char * what, bool nested = false);
    ~Guard() { guarded_.unlock(); }
    Guard(const Guard &) = delete;
    Guard & operator=(const Guard &) = delete;

  private:
    LogDelivery delivery_; // first member, so that it is destroyed after the unlock
    Guarded & guarded_;
};
