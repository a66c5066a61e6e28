// Work that recurses as deep as its input is long.
#pragma once

#include <cstddef>
#include <functional>

/// Runs `work` on a thread whose stack is large enough for `depth` levels of recursion, and waits for it. What it throws is
/// thrown here. Where such a thread cannot be had, std::system_error.
void run_on_big_stack(size_t depth, const std::function<void()> & work);
