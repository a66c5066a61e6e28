#include "big_stack.hpp"

#include <exception>
#include <stdexcept>

#include "failed_check.hpp"
#include "logging.hpp"

#ifdef _WIN32
#include <thread>

void run_on_big_stack(size_t, const std::function<void()> & work) { work(); }

#else
#include <pthread.h>

#include <string>
#include <utility>

namespace {

struct Task {
    const std::function<void()> & work;
    std::exception_ptr error;
    std::string logged;
};

void * run(void * data) {
    auto & task = *static_cast<Task *>(data);
    const ChecksThrow checks_throw;
    try {
        task.work();
    } catch (...) {
        task.error = std::current_exception();
    }
    task.logged = logged_errors("");
    return nullptr;
}

} // namespace

void run_on_big_stack(size_t bytes, const std::function<void()> & work) {
    constexpr size_t kPage = 1 << 16; // bytes; some systems need whole pages
    const size_t size = (kBaseStack + bytes + kPage - 1) / kPage * kPage;
    Task task{work, nullptr, {}};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    // The memory is only reserved: the system provides a page when the recursion reaches it.
    int failed = pthread_attr_setstacksize(&attributes, size);
    pthread_t thread;
    if (!failed) {
        failed = pthread_create(&thread, &attributes, run, &task);
    }
    pthread_attr_destroy(&attributes);
    if (failed) {
        throw std::runtime_error("the text is too long: there is no memory for a stack of " + std::to_string(size >> 20) +
                                 " MiB to work on it");
    }
    pthread_join(thread, nullptr);
    set_logged_errors(std::move(task.logged));
    if (task.error) {
        std::rethrow_exception(task.error);
    }
}
#endif
