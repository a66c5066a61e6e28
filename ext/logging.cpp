#include "logging.hpp"

#include <nanobind/nanobind.h>

#include <atomic>
#include <mutex>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif

#include "gil.hpp"
#include "llama.h"
#include "lock.hpp"
#include "modules.hpp"
#include "mtmd.h"

namespace nb = nanobind;

namespace {

struct Record {
    int level;
    std::string text;
};

constexpr int kDebug = 10, kInfo = 20, kWarning = 30, kError = 40; // levels of Python's logging module
constexpr size_t kMaxPending = 10000; // records: bounds the memory of a flood that is never delivered
constexpr size_t kMaxErrors = 4096;   // bytes of text

std::mutex queue_mutex;
std::vector<Record> queue;            // guarded by queue_mutex
std::atomic<bool> pending{false};     // whether queue has a record
std::atomic<int> threshold{kWarning}; // the logger's level
thread_local std::string line;        // what this thread has logged since its last newline
thread_local int line_level = kInfo;
thread_local std::string errors;
thread_local const std::atomic<bool> * quiet = nullptr; // see QuietWhile
thread_local bool probing = false;                      // see ProbeLog

int python_level(ggml_log_level level) {
    switch (level) {
        case GGML_LOG_LEVEL_ERROR: return kError;
        case GGML_LOG_LEVEL_WARN: return kWarning;
        case GGML_LOG_LEVEL_INFO: return kInfo;
        default: return kDebug;
    }
}

void finish_line() {
    if (quiet && quiet->load(std::memory_order_relaxed)) {
        line_level = kDebug;
    }
    // llama.cpp warns of every context with more cells than the training length. Here conversations share the cells.
    if (line_level == kWarning && line.find("possible training context overflow") != std::string::npos) {
        line_level = kInfo;
    }
    if (line_level >= kError && errors.size() < kMaxErrors) {
        errors += (errors.empty() ? "" : "; ") + line;
    }
    if (probing) {
        line_level = kDebug;
    }
    if (line_level >= threshold.load(std::memory_order_relaxed)) {
        std::lock_guard<std::mutex> lock(queue_mutex);
        if (queue.size() < kMaxPending) {
            queue.push_back({line_level, line});
            pending.store(true, std::memory_order_release);
        }
    }
    line.clear();
}

// llama.cpp calls this on any thread, with or without the GIL, possibly with a lock held: it only adds to the queue.
void on_log(ggml_log_level level, const char * text, void *) {
    if (level != GGML_LOG_LEVEL_CONT) {
        line_level = python_level(level);
    }
    for (const char * p = text; *p; ++p) {
        if (*p == '\n') {
            finish_line();
        } else {
            line += *p;
        }
    }
}

nb::object logger() { return nb::module_::import_("logging").attr("getLogger")("cyllama.llama"); }

void deliver() {
    std::vector<Record> records;
    {
        std::lock_guard<std::mutex> lock(queue_mutex);
        records.swap(queue);
        pending.store(false, std::memory_order_release);
    }
    nb::object log = logger().attr("log");
    for (const Record & record : records) {
        try { // a record on which a handler fails must not prevent the others
            nb::object text = nb::steal(PyUnicode_DecodeUTF8(record.text.data(), record.text.size(), "replace"));
            log(record.level, "%s", text);
        } catch (nb::python_error & error) {
            error.discard_as_unraisable("delivering llama.cpp's log");
        }
    }
}

} // namespace

LogDelivery::~LogDelivery() {
    // A handler may wait for another thread, which may wait for a lock that this one holds. The scope that releases the
    // last lock delivers.
    if (native_holds || !pending.load(std::memory_order_acquire) || !nb::is_alive()) {
        return;
    }
    nb::error_scope keep_current_error; // a handler must not replace an exception in flight
    try {
        call_python(deliver);
    } catch (nb::python_error & error) {
        error.discard_as_unraisable("delivering llama.cpp's log");
    } catch (...) {
    }
}

QuietWhile::QuietWhile(const std::atomic<bool> & flag) { quiet = &flag; }

QuietWhile::~QuietWhile() { quiet = nullptr; }

ProbeLog::ProbeLog() { probing = true; }

ProbeLog::~ProbeLog() { probing = false; }

void refresh_log_level() {
    call_python([] { threshold.store(nb::cast<int>(logger().attr("getEffectiveLevel")())); });
}

void clear_logged_errors() { errors.clear(); }

std::string logged_errors(const std::string & otherwise) { return errors.empty() ? otherwise : errors; }

void set_logged_errors(std::string text) { errors = std::move(text); }

void init_logging(nb::module_ & m) {
    llama_log_set(on_log, nullptr);
    mtmd_log_set(on_log, nullptr);
#ifndef _WIN32
    // A forked child must not inherit the lock from a thread that does not exist there.
    pthread_atfork([] { queue_mutex.lock(); }, [] { queue_mutex.unlock(); }, [] { queue_mutex.unlock(); });
#endif
    m.def("refresh_log_level", &refresh_log_level, R"doc(
        Read the level of logger "cyllama.llama" again.

        Records below that level are dropped before they reach Python. Loading a model and creating a context read
        the level themselves: call this after a change in between.
        )doc");
}
