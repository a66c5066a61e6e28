// Work that recurses as deep as its input is long.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

/// What a big stack has in addition to what is asked for.
constexpr size_t kBaseStack = 8 << 20;

/// Runs `work` on a thread with a stack of `bytes`, and waits for it. What it throws is thrown here, what it logs counts as
/// logged here. Where such a thread cannot be had, std::runtime_error.
void run_on_big_stack(size_t bytes, const std::function<void()> & work);

/// How deep brackets and braces are nested in `text`; `json`: those in its strings do not count.
size_t nesting_depth(const std::string & text, bool json);

/// While this exists, the thread's `check_stack()` throws once its stack has less than `reserve` bytes left, or once `seconds`
/// have passed. To be created at the beginning of work on a big stack of `bytes`.
class StackWatch {
  public:
    StackWatch(size_t bytes, size_t reserve, double seconds);
    ~StackWatch();
    StackWatch(const StackWatch &) = delete;
    StackWatch & operator=(const StackWatch &) = delete;

    static void check_stack();
    /// Throws, and so does check_exceeded() from now on, for a reason of the caller's.
    static void exceed(const char * reason);
    /// Throws if check_stack() or exceed() has thrown before: what is in between may have ignored it.
    static void check_exceeded();

  private:
    const uintptr_t lowest_;
    const std::chrono::steady_clock::time_point deadline_;
    const char * exceeded_ = nullptr;
};
