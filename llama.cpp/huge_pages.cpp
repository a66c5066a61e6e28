// Memory of large buffers on the CPU, in place of ggml_aligned_malloc in ggml-backend.cpp (see CMakeLists.txt).
#include <cstdint>

#include "ggml-impl.h"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

#ifdef MADV_HUGEPAGE
// glibc takes at least these from the operating system, and gives them back, each by itself (mallopt(3), M_MMAP_THRESHOLD):
// the advice is gone with the buffer.
static constexpr size_t kLarge = 32 * 1024 * 1024;

// Asks for pages of 2 MiB: weights and keys and values are read from end to end in every step, and with pages of 4 KiB a
// part of that time is spent on looking up addresses. Where the system has no such pages it goes on with small ones.
static void advise(void * data, size_t size) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + size) / page * page;
    madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
}
#endif

extern "C" void * cyllama_aligned_malloc(size_t size);

void * cyllama_aligned_malloc(size_t size) {
    void * data = ggml_aligned_malloc(size);
#ifdef MADV_HUGEPAGE
    if (data && size >= kLarge) {
        advise(data, size);
    }
#endif
    return data;
}
