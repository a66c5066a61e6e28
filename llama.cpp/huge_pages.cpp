// In place of ggml_aligned_malloc and ggml_aligned_free in ggml-backend.cpp (see CMakeLists.txt).
//
// Weights and keys and values are read from end to end in every step, and with pages of 4 KiB a part of that time is spent on
// looking up addresses. To fill new memory of 2 MiB pages takes long, though, where memory is fragmented, or where a virtual
// machine gives free blocks of this size back to its host. So buffers are filled in small pages, and Linux copies them to
// large ones afterwards, while other threads read and write them. Memory that is mapped from a file is replaced by a copy.
#include "huge_pages.hpp"

#include <algorithm>
#include <cstdint>

#include "ggml-impl.h"

#ifdef __linux__
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 // since Linux 6.1: headers may be older
#endif

namespace {

// glibc takes at least these from the operating system, and gives them back, each by itself (mallopt(3), M_MMAP_THRESHOLD):
// what Linux notes about their memory is gone with the buffer.
constexpr size_t kLarge = 32 * 1024 * 1024;
constexpr uintptr_t kPage = 4096;
constexpr uintptr_t kBlock = 2 * 1024 * 1024;

uintptr_t round_up(uintptr_t address, uintptr_t unit) { return (address + unit - 1) / unit * unit; }

struct Blocks {
    std::mutex mutex;                // held while a block is copied, which must not be freed meanwhile
    std::map<uintptr_t, bool> small; // blocks that are not known to be large pages, and whether a file is mapped there
    uintptr_t next = 0;              // for the thread
    bool has_thread = false;
};

// Never destroyed: the thread may outlive the objects of this file.
Blocks & blocks = *new Blocks;

// A child has no such thread. Its buffers stay as they are: it shares their memory with the parent.
const int forgets_in_child = pthread_atfork([] { blocks.mutex.lock(); }, [] { blocks.mutex.unlock(); },
                                            [] {
                                                blocks.small.clear();
                                                blocks.has_thread = false;
                                                blocks.mutex.unlock();
                                            });

// Whether all pages of a block are in memory (63), and in no other process (56), as after fork(): copies of unused memory
// or of what several share would take memory that was free (see the kernel's admin-guide/mm/pagemap).
bool is_resident_here(uintptr_t block) {
    constexpr uint64_t kResidentHere = uint64_t{1} << 63 | uint64_t{1} << 56;
    uint64_t pages[kBlock / kPage];
    const int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const ssize_t n_bytes = pread(file, pages, sizeof pages, static_cast<off_t>(block / kPage * sizeof *pages));
    close(file);
    return n_bytes == sizeof pages && std::all_of(std::begin(pages), std::end(pages),
                                                  [](uint64_t page) { return (page & kResidentHere) == kResidentHere; });
}

// MADV_COLLAPSE would not heed the setting "never".
bool can_collapse() {
    std::string setting;
    std::getline(std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled"), setting);
    return !setting.empty() && setting.find("[never]") == std::string::npos && sysconf(_SC_PAGESIZE) == long{kPage} &&
           access("/proc/self/pagemap", R_OK) == 0 && madvise(nullptr, 0, MADV_COLLAPSE) == 0;
}

const bool collapses = can_collapse();

void add(uintptr_t begin, uintptr_t end, bool mapped) {
    std::lock_guard<std::mutex> lock(blocks.mutex);
    try {
        for (uintptr_t block = round_up(begin, kBlock); block + kBlock <= end; block += kBlock) {
            blocks.small.emplace(block, mapped);
        }
    } catch (const std::bad_alloc &) { // these stay small
    }
}

void remove(uintptr_t begin, uintptr_t end) {
    std::lock_guard<std::mutex> lock(blocks.mutex);
    blocks.small.erase(blocks.small.lower_bound(begin), blocks.small.lower_bound(end));
}

std::chrono::nanoseconds time_on(clockid_t clock) {
    timespec time{};
    clock_gettime(clock, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

// Sleeps as long as `worked`, and nine times as long if other threads of this process compute.
void rest(std::chrono::nanoseconds worked) {
    const auto begin = time_on(CLOCK_PROCESS_CPUTIME_ID);
    std::this_thread::sleep_for(worked);
    if (time_on(CLOCK_PROCESS_CPUTIME_ID) - begin > worked / 2) {
        std::this_thread::sleep_for(8 * worked);
    }
}

// Returns an empty block in one large page, or null.
void * new_large_page() {
    void * memory = mmap(nullptr, 2 * kBlock, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return nullptr;
    }
    const auto begin = reinterpret_cast<uintptr_t>(memory), block = round_up(begin, kBlock), end = begin + 2 * kBlock;
    void * page = reinterpret_cast<void *>(block);
    if (block > begin) {
        munmap(memory, block - begin);
    }
    munmap(reinterpret_cast<void *>(block + kBlock), end - block - kBlock);
    *static_cast<volatile char *>(page) = 0; // what has no page at all cannot be enlarged
    if (madvise(page, kBlock, MADV_COLLAPSE) == 0) {
        return page;
    }
    munmap(page, kBlock);
    return nullptr;
}

// Replaces a block that is mapped from a file by a copy in a large page, at once for threads that read it meanwhile.
bool replace(uintptr_t block) {
    void * page = new_large_page();
    if (!page) {
        return false;
    }
    void * mapped = reinterpret_cast<void *>(block);
    std::memcpy(page, mapped, kBlock);
    if (mprotect(page, kBlock, PROT_READ) == 0 &&
        mremap(page, kBlock, kBlock, MREMAP_MAYMOVE | MREMAP_FIXED, mapped) == mapped) {
        return true;
    }
    munmap(page, kBlock);
    return false;
}

void enlarge() {
    std::this_thread::sleep_for(std::chrono::seconds(1)); // a short program ends before
    for (;;) {
        const auto begin = time_on(CLOCK_THREAD_CPUTIME_ID);
        {
            std::lock_guard<std::mutex> lock(blocks.mutex);
            const auto block = blocks.small.lower_bound(blocks.next);
            if (block == blocks.small.end()) {
                blocks.has_thread = false;
                return;
            }
            const auto [address, mapped] = *block;
            blocks.next = address + 1;
            if (is_resident_here(address) &&
                (mapped ? replace(address) : madvise(reinterpret_cast<void *>(address), kBlock, MADV_COLLAPSE) == 0)) {
                blocks.small.erase(block);
            } // others are tried again after the next load
        }
        rest(time_on(CLOCK_THREAD_CPUTIME_ID) - begin);
    }
}

} // namespace

void cyllama_enlarge_pages() {
    std::lock_guard<std::mutex> lock(blocks.mutex);
    blocks.next = 0;
    if (blocks.small.empty() || blocks.has_thread) {
        return;
    }
    sigset_t all, before; // Python handles signals on threads of its own
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        std::thread thread(enlarge);
        pthread_setname_np(thread.native_handle(), "cyllama-pages");
        thread.detach();
        blocks.has_thread = true;
    } catch (const std::system_error &) { // no further thread: pages stay small
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void cyllama_copy_mapped(const void * data, size_t size) {
    if (collapses) {
        add(reinterpret_cast<uintptr_t>(data), reinterpret_cast<uintptr_t>(data) + size, true);
    }
}

void cyllama_keep_mapped(const void * data, size_t size) {
    remove(reinterpret_cast<uintptr_t>(data), reinterpret_cast<uintptr_t>(data) + size);
}
#else
void cyllama_enlarge_pages() {}
void cyllama_copy_mapped(const void *, size_t) {}
void cyllama_keep_mapped(const void *, size_t) {}
#endif

extern "C" void * cyllama_aligned_malloc(size_t size);
extern "C" void cyllama_aligned_free(void * data, size_t size);

void * cyllama_aligned_malloc(size_t size) {
    void * data = ggml_aligned_malloc(size);
#ifdef __linux__
    if (data && size >= kLarge) {
        const auto begin = reinterpret_cast<uintptr_t>(data), end = begin + size;
        if (collapses) {
            add(begin, end, false);
        } else {
            const uintptr_t first = round_up(begin, kPage);
            madvise(reinterpret_cast<void *>(first), end - first, MADV_HUGEPAGE);
        }
    }
#endif
    return data;
}

void cyllama_aligned_free(void * data, size_t size) {
#ifdef __linux__
    if (collapses && size >= kLarge) {
        remove(reinterpret_cast<uintptr_t>(data), reinterpret_cast<uintptr_t>(data) + size);
    }
#endif
    ggml_aligned_free(data, size);
}
