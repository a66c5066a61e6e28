// In place of ggml_aligned_malloc and ggml_aligned_free in ggml-backend.cpp (see CMakeLists.txt).
//
// Weights and keys and values are read from end to end in every step, and with pages of 4 KiB a part of that time is spent on
// looking up addresses. To fill new memory of 2 MiB pages takes long, though, where memory is fragmented, or where a virtual
// machine gives free blocks of this size back to its host. So buffers are filled in small pages, and Linux copies them to
// large ones afterwards, while other threads read and write them.
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
#include <ctime>
#include <fstream>
#include <iterator>
#include <mutex>
#include <new>
#include <set>
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
    std::mutex mutex;          // held while a block is copied, which must not be freed meanwhile
    std::set<uintptr_t> small; // addresses of the blocks of all large buffers that are not known to be large pages
    uintptr_t next = 0;        // for the thread
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

void add(uintptr_t begin, uintptr_t end) {
    std::lock_guard<std::mutex> lock(blocks.mutex);
    try {
        for (uintptr_t block = round_up(begin, kBlock); block + kBlock <= end; block += kBlock) {
            blocks.small.insert(block);
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
            blocks.next = *block + 1;
            if (is_resident_here(*block) && madvise(reinterpret_cast<void *>(*block), kBlock, MADV_COLLAPSE) == 0) {
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
#else
void cyllama_enlarge_pages() {}
#endif

extern "C" void * cyllama_aligned_malloc(size_t size);
extern "C" void cyllama_aligned_free(void * data, size_t size);

void * cyllama_aligned_malloc(size_t size) {
    void * data = ggml_aligned_malloc(size);
#ifdef __linux__
    if (data && size >= kLarge) {
        const auto begin = reinterpret_cast<uintptr_t>(data), end = begin + size;
        if (collapses) {
            add(begin, end);
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
