// Python's global interpreter lock (GIL).
#pragma once

#include <Python.h>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include "shutdown.hpp"

/// Calls a function that may wait for the GIL or run Python code. After the interpreter has shut down, Python before 3.14
/// ends a daemon thread that does so with pthread_exit, whose unwinding aborts the process in C++ code: such a thread
/// sleeps instead.
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

/// Releases the GIL for the length of a scope. `computes`: the scope computes; otherwise it only waits for a lock.
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

/// Takes the GIL for the length of a scope, for a callback of a computation. The computation pauses meanwhile.
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
