#include "failed_check.hpp"

#include <Python.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#ifndef _WIN32
#include <unwind.h>
#endif

#include "ggml-cpu.h"
#include "ggml.h"

namespace {

thread_local bool checks_throw = false; // see ChecksThrow

#ifdef _WIN32
bool computes() { return true; } // unknown here: the process ends
#else
// Whether ggml_graph_compute is among the callers of this function.
bool computes() {
    bool found = false;
    _Unwind_Backtrace(
        [](_Unwind_Context * frame, void * data) {
            void * function = _Unwind_FindEnclosingFunction(reinterpret_cast<void *>(_Unwind_GetIP(frame) - 1));
            if (function != reinterpret_cast<void *>(&ggml_graph_compute)) {
                return _URC_NO_REASON;
            }
            *static_cast<bool *>(data) = true;
            return _URC_END_OF_STACK;
        },
        &found);
    return found;
}
#endif

// "/path/of/the/build/src/llama-graph.cpp:180: GGML_ASSERT(...) failed", without the path.
std::string without_folder(const char * message) {
    const char * colon = std::strchr(message, ':');
    const char * name = message;
    for (const char * p = message; *p && p != colon; ++p) {
        name = *p == '/' || *p == '\\' ? p + 1 : name;
    }
    return name;
}

void on_failed_check(const char * message) {
    const bool called_from_python = checks_throw || (Py_IsInitialized() && PyGILState_GetThisThreadState() != nullptr);
    if (called_from_python && !computes()) {
        throw std::runtime_error("a check of llama.cpp failed, which would have ended the process: " +
                                 without_folder(message));
    }
    std::fprintf(stderr, "%s\n", message);
}

} // namespace

void init_failed_checks() {
#ifndef _WIN32
    setenv("GGML_NO_BACKTRACE", "1",
           0); // or ggml would start a debugger that attaches to this process
#endif
    ggml_set_abort_callback(on_failed_check);
}

ChecksThrow::ChecksThrow() { checks_throw = true; }

ChecksThrow::~ChecksThrow() { checks_throw = false; }
