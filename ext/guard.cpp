#include "guard.hpp"

#ifdef _WIN32
#include <process.h>
long current_process() { return _getpid(); }
#else
#include <unistd.h>
long current_process() { return getpid(); }
#endif

static void check_usable(const Guarded & guarded, const char * what) {
    if (guarded.forked()) {
        throw std::runtime_error(std::string("this ") + what +
                                 " was created before os.fork(): its worker threads do not exist in the child process. "
                                 "Create a new one there, or start the process with multiprocessing's 'spawn'");
    }
    if (guarded.owner.load() == std::this_thread::get_id()) {
        throw std::runtime_error(std::string("this ") + what + " is in use by this thread: a callback of its own cannot "
                                                               "call it");
    }
}

void Guarded::lock(const char * what) {
    check_usable(*this, what);
    mutex.lock();
    owner.store(std::this_thread::get_id());
}

void Guarded::unlock() {
    owner.store(std::thread::id());
    mutex.unlock();
}

Guard::Guard(Guarded & guarded, const char * what) : guarded_(guarded) {
    check_usable(guarded, what);
    if (!guarded.mutex.try_lock()) {
        nb::gil_scoped_release release;
        guarded.mutex.lock();
    }
    guarded.owner.store(std::this_thread::get_id());
}
