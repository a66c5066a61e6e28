// Work whose recursion is as deep as its input is long.
#pragma once

#include <cstddef>
#include <functional>

/// Bytes that a big stack has in addition to those asked for.
constexpr size_t kBaseStack = 8 << 20;

/// Runs `work` on a thread with a stack of `bytes`, and waits for it. This function throws what `work` throws, and errors
/// that it logs count as logged by the caller. Throws std::runtime_error if there is no memory for the stack.
void run_on_big_stack(size_t bytes, const std::function<void()> & work);
