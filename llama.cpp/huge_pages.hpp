// Memory of large buffers on the CPU, in large pages.
#pragma once

/// Call it after what fills large buffers of weights, or of keys and values. A thread of its own then puts them into pages of
/// 2 MiB, if the system has them: from a second later on, and within a tenth of the time of one processor, or half of it while
/// the process does nothing else.
void cyllama_enlarge_pages();
