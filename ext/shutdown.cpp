#include "shutdown.hpp"

#include <atomic>
#include <chrono>
#include <thread>

#ifndef _WIN32
#include <pthread.h>
#endif

static std::atomic<int> computations{0};
static std::atomic<std::thread::id> exiting_thread{}; // the thread that shuts the interpreter down, once there is one

#ifndef _WIN32
// A child of fork() has none of the threads that compute in the parent, so its exit must not wait for them. The thread that
// calls fork() computes nothing, because it holds the GIL.
static const int forgets_in_child = pthread_atfork(nullptr, nullptr, [] { computations.store(0); });
#endif

void sleep_forever() {
    for (;;) {
        std::this_thread::sleep_for(std::chrono::hours(1));
    }
}

bool must_end() {
    const std::thread::id exiting = exiting_thread.load();
    return exiting != std::thread::id() && exiting != std::this_thread::get_id();
}

void begin_computation() {
    ++computations;
    // This thread counts first and then looks; the exiting thread announces itself first and then counts. So one of them
    // sees the other.
    if (must_end()) {
        --computations;
        sleep_forever();
    }
}

void end_computation() { --computations; }

void begin_shutdown() { exiting_thread.store(std::this_thread::get_id()); }

void await_computations() {
    constexpr int kLimit = 10'000; // milliseconds: an exit must not hang
    // Decodes and loads look at must_end(); other computations are short.
    for (int milliseconds = 0; computations.load() > 0 && milliseconds < kLimit; ++milliseconds) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}
