// llama.cpp's log as records of Python's `logging`, logger "cyllama.llama".
#pragma once

#include <atomic>
#include <string>

/// Delivers pending log records when a scope ends, with the GIL held. Does nothing while the thread holds a native lock: a
/// handler may call anything, and wait for anything.
class LogDelivery {
  public:
    LogDelivery() = default;
    ~LogDelivery();
    LogDelivery(const LogDelivery &) = delete;
    LogDelivery & operator=(const LogDelivery &) = delete;
};

/// Reads the logger's level; records below it are dropped at once. Called where a load or a context creation starts.
void refresh_log_level();

/// For the length of a scope, records of this thread have level DEBUG while `flag` is set: after an abort on request,
/// llama.cpp reports errors that are expected.
class QuietWhile {
  public:
    explicit QuietWhile(const std::atomic<bool> & flag);
    ~QuietWhile();
    QuietWhile(const QuietWhile &) = delete;
    QuietWhile & operator=(const QuietWhile &) = delete;
};

/// For the length of a scope, records of this thread have level DEBUG: the memory of a model is measured by preparing it
/// several times. Errors are remembered all the same: see logged_errors().
class ProbeLog {
  public:
    ProbeLog();
    ~ProbeLog();
    ProbeLog(const ProbeLog &) = delete;
    ProbeLog & operator=(const ProbeLog &) = delete;
};

/// Forgets the errors that llama.cpp has logged on this thread.
void clear_logged_errors();
/// Returns the errors logged since then, which are the reason of a failed call, or `otherwise` if there are none.
std::string logged_errors(const std::string & otherwise);
/// Replaces this thread's errors by those of a thread that worked on its behalf.
void set_logged_errors(std::string text);
