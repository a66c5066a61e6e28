#include "guard.hpp"

#include <chrono>

#ifdef _WIN32
#include <process.h>
long current_process() { return _getpid(); }
#else
#include <pthread.h>
#include <unistd.h>
long current_process() { return getpid(); }
#endif

thread_local int native_holds = 0;

void sleep_forever() {
    for (;;) {
        std::this_thread::sleep_for(std::chrono::hours(1));
    }
}

static std::atomic<int> computations{0};
static std::atomic<std::thread::id> exiting_thread{}; // who shuts the interpreter down, once somebody does

#ifndef _WIN32
// A forked child has none of the threads that compute in the parent: its exit must not wait for them. The thread that forks
// computes nothing, since it holds the GIL.
static const int forgets_in_child = pthread_atfork(nullptr, nullptr, [] {
    computations.store(0);
    nb::set_leak_warnings(false); // what those threads refer to is never given back
});
#endif

bool must_end() {
    const std::thread::id exiting = exiting_thread.load();
    return exiting != std::thread::id() && exiting != std::this_thread::get_id();
}

void begin_computation() {
    ++computations;
    if (must_end()) { // looked at after counting, as end_computations counts after saying so: one of them sees the other
        --computations;
        sleep_forever();
    }
}

void end_computation() { --computations; }

void end_computations() {
    exiting_thread.store(std::this_thread::get_id());
    WithoutGil release(false);
    // Decodes and loads look at must_end(); the rest is short. A limit all the same: an exit must not hang.
    for (int milliseconds = 0; computations.load() > 0 && milliseconds < 10'000; ++milliseconds) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

static void check_usable(const Guarded & guarded, const char * what) {
    if (guarded.forked()) {
        throw std::runtime_error(std::string("this ") + what +
                                 " was created before os.fork(): its worker threads do not exist in the child process. "
                                 "Create a new one there, or start the process with multiprocessing's 'spawn'");
    }
    if (guarded.owner.load() == std::this_thread::get_id()) {
        throw std::runtime_error(std::string("this ") + what +
                                 " is in use by this thread: a callback of its own cannot "
                                 "call it");
    }
}

void Guarded::lock(const char * what) {
    check_usable(*this, what);
    mutex.lock();
    owner.store(std::this_thread::get_id());
    ++native_holds;
}

void Guarded::unlock() {
    --native_holds;
    owner.store(std::thread::id());
    mutex.unlock();
}

Guard::Guard(Guarded & guarded, const char * what, bool nested) : guarded_(guarded) {
    check_usable(guarded, what);
    if (!guarded.mutex.try_lock()) {
        if (native_holds && !nested) {
            throw std::runtime_error(std::string("this ") + what +
                                     " is in use by another thread: a callback cannot wait "
                                     "for it, since that thread may wait for the callback");
        }
        WithoutGil release(false);
        guarded.mutex.lock();
    }
    guarded.owner.store(std::this_thread::get_id());
    ++native_holds;
}
