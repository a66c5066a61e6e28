// Memory of large buffers on the CPU, in large pages.
#pragma once

#include <cstddef>

/// Call it after what fills large buffers of weights, or of keys and values. A thread of its own then puts them into pages of
/// 2 MiB, if the system has them: from a second later on, and within a tenth of the time of one processor, or half of it while
/// the process does nothing else.
void cyllama_enlarge_pages();

/// Has that thread do so with memory that is mapped from a file, too, and only read: this process then has a copy of its own.
/// Call cyllama_keep_mapped() before the memory is unmapped.
void cyllama_copy_mapped(const void * data, size_t size);

/// Leaves memory alone from then on that cyllama_copy_mapped() was called for.
void cyllama_keep_mapped(const void * data, size_t size);
