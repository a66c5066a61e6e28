#include "big_stack.hpp"

#include <exception>
#include <system_error>

#ifdef _WIN32
#include <thread>

void run_on_big_stack(size_t, const std::function<void()> & work) { work(); }

#else
#include <pthread.h>

namespace {

constexpr size_t kBytesPerLevel = 1024; // libstdc++'s regex executor takes about half of this
constexpr size_t kBase = 8 << 20;

struct Task {
    const std::function<void()> & work;
    std::exception_ptr error;
};

void * run(void * data) {
    auto & task = *static_cast<Task *>(data);
    try {
        task.work();
    } catch (...) {
        task.error = std::current_exception();
    }
    return nullptr;
}

} // namespace

void run_on_big_stack(size_t depth, const std::function<void()> & work) {
    Task task{work, nullptr};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    // The memory is only reserved: pages that the recursion never reaches are never touched.
    int failed = pthread_attr_setstacksize(&attributes, kBase + depth * kBytesPerLevel);
    pthread_t thread;
    if (!failed) {
        failed = pthread_create(&thread, &attributes, run, &task);
    }
    pthread_attr_destroy(&attributes);
    if (failed) {
        throw std::system_error(failed, std::generic_category(), "cannot start a thread to tokenise a long text");
    }
    pthread_join(thread, nullptr);
    if (task.error) {
        std::rethrow_exception(task.error);
    }
}
#endif
