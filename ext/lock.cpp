#include "lock.hpp"

#include <stdexcept>
#include <string>

thread_local int native_holds = 0;

void Guarded::check_lockable(const char * what) const {
    if (forked()) {
        throw std::runtime_error(std::string("this ") + what +
                                 " was created before os.fork(): its worker threads do not exist in the child process. "
                                 "Create a new one there, or start the process with multiprocessing's 'spawn'");
    }
    if (owner.load() == std::this_thread::get_id()) {
        throw std::runtime_error(std::string("this ") + what +
                                 " is in use by this thread: a callback of its own cannot call it");
    }
}

void Guarded::lock(const char * what) {
    check_lockable(what);
    mutex.lock();
    owner.store(std::this_thread::get_id());
    ++native_holds;
}

void Guarded::unlock() {
    --native_holds;
    owner.store(std::thread::id());
    mutex.unlock();
}
