// llama.cpp's log as records of Python's `logging`, logger "cyllama.llama".
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <string>

/// Delivers pending log records when a scope ends, with the GIL held, if the thread holds no native lock: a handler may call
/// anything, and wait for anything.
class LogDelivery {
  public:
    LogDelivery() = default;
    ~LogDelivery();
    LogDelivery(const LogDelivery &) = delete;
    LogDelivery & operator=(const LogDelivery &) = delete;
};

/// Reads the logger's level, below which records are dropped at once. Called where a load or a context creation starts.
void refresh_log_level();

/// For the length of a scope, what this thread logs while `flag` is set is for debugging only: an abort on request makes
/// llama.cpp report errors that are none.
class QuietWhile {
  public:
    explicit QuietWhile(const std::atomic<bool> & flag);
    ~QuietWhile();
    QuietWhile(const QuietWhile &) = delete;
    QuietWhile & operator=(const QuietWhile &) = delete;
};

/// Forgets, and later returns, the errors that llama.cpp has logged on this thread: the reason of a failed call.
void clear_logged_errors();
std::string logged_errors(const std::string & otherwise);
/// Takes over what another thread has logged on behalf of this one.
void set_logged_errors(std::string text);

void init_logging(nanobind::module_ & m);
