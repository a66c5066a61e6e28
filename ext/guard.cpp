#include "guard.hpp"

#include <stdexcept>
#include <string>

Guard::Guard(Guarded & guarded, const char * what, bool nested) : guarded_(guarded) {
    guarded.check_lockable(what);
    if (!guarded.mutex.try_lock()) {
        if (native_holds && !nested) {
            throw std::runtime_error(std::string("this ") + what +
                                     " is in use by another thread: a callback cannot wait for it, since that thread may "
                                     "wait for the callback");
        }
        WithoutGil release(false);
        guarded.mutex.lock();
    }
    guarded.owner.store(std::this_thread::get_id());
    ++native_holds;
}
