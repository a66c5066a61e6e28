#include "pages.hpp"

#include <new>

#ifdef _WIN32
#include <cstdlib>

Pages::Pages(size_t size) : data_(static_cast<uint8_t *>(std::malloc(size))), size_(size) {
    if (!data_) {
        throw std::bad_alloc();
    }
}

Pages::~Pages() { std::free(data_); }

#else
#include <sys/mman.h>

Pages::Pages(size_t size) : size_(size) {
    void * pages = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        throw std::bad_alloc();
    }
#ifdef MADV_HUGEPAGE
    madvise(pages, size, MADV_HUGEPAGE); // page faults of 4 KiB each would take longer than the copy
#endif
    data_ = static_cast<uint8_t *>(pages);
}

Pages::~Pages() { munmap(data_, size_); }
#endif
