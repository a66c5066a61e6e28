// A failed check of llama.cpp (GGML_ASSERT, GGML_ABORT) as an exception.
//
// llama.cpp ends the process where one of its checks fails. After init_failed_checks(), such a check throws
// std::runtime_error instead, on threads that called llama.cpp, outside of a computation. Within a computation (the worker
// threads of a graph would wait forever for the thread that left) and on llama.cpp's own threads the process still ends,
// with the check on stderr.
//
// This is the last line of defence: what is known to fail a check is refused before, with a message of its own. An object
// that an exception left half-done must not be used again, see ContextHandle::failed_check.
#pragma once

/// Called once, before llama.cpp is used.
void init_failed_checks();

/// For the length of a scope, failed checks throw on this thread although Python did not start it.
class ChecksThrow {
  public:
    ChecksThrow();
    ~ChecksThrow();
    ChecksThrow(const ChecksThrow &) = delete;
    ChecksThrow & operator=(const ChecksThrow &) = delete;
};
