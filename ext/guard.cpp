#include "guard.hpp"

#include <chrono>

#ifdef _WIN32
#include <process.h>
long current_process() { return _getpid(); }
#else
#include <unistd.h>
long current_process() { return getpid(); }
#endif

thread_local int native_holds = 0;

void sleep_forever() {
    for (;;) {
        std::this_thread::sleep_for(std::chrono::hours(1));
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
        WithoutGil release;
        guarded.mutex.lock();
    }
    guarded.owner.store(std::this_thread::get_id());
    ++native_holds;
}
