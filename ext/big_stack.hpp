// Work that recurses as deep as its input is long.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

/// What a big stack has in addition to what is asked for.
constexpr size_t kBaseStack = 8 << 20;

/// Runs `work` on a thread with a stack of `bytes`, and waits for it. What it throws is thrown here, what it logs counts as
/// logged here. Where such a thread cannot be had, std::runtime_error.
void run_on_big_stack(size_t bytes, const std::function<void()> & work);

/// How deep brackets and braces are nested in `text`; `json`: those in its strings do not count.
size_t nesting_depth(const std::string & text, bool json);
