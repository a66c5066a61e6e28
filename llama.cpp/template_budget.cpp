#include "template_budget.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

#if defined(__GLIBC__) || defined(__linux__)
#include <malloc.h>
#elif defined(__APPLE__)
#include <malloc/malloc.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define CYLLAMA_COUNT_MEMORY 0 // the sanitizer needs its own allocator
#elif defined(__linux__) || defined(__APPLE__)
#define CYLLAMA_COUNT_MEMORY 1
#else
#define CYLLAMA_COUNT_MEMORY 0
#endif

namespace cyllama {

namespace {

thread_local TemplateBudget * current = nullptr;

constexpr size_t kBytesPerStep = 128;

uintptr_t stack_pointer() {
    volatile char here = 0;
    return reinterpret_cast<uintptr_t>(&here);
}

} // namespace

TemplateBudget::TemplateBudget(const Limits & limits) : limits_(limits), lowest_(stack_pointer() - limits.stack) {
    current = this;
}

TemplateBudget::~TemplateBudget() { current = nullptr; }

void TemplateBudget::check() const {
    if (exceeded_) {
        throw TemplateLimitError(exceeded_);
    }
}

void TemplateBudget::exceed(const char * reason) {
    exceeded_ = reason;
    throw TemplateLimitError(reason);
}

void TemplateBudget::step(uint64_t n) {
    steps_ += n;
    if (exceeded_ || steps_ > limits_.steps) {
        exceed(exceeded_ ? exceeded_ : "the template does not come to an end: it takes too many steps");
    }
}

void TemplateBudget::check_stack() {
    if (stack_pointer() < lowest_) {
        exceed("the template calls itself without end, or nests values too deep");
    }
}

TemplateEvaluation::TemplateEvaluation() : budget_(current) {
    if (budget_) {
        budget_->step(1);
        budget_->check_stack();
        ++budget_->evaluations_;
    }
}

TemplateEvaluation::~TemplateEvaluation() {
    if (budget_) {
        --budget_->evaluations_;
    }
}

void template_work(size_t bytes) {
    if (current) {
        current->step(bytes / kBytesPerStep);
    }
}

void template_output(size_t bytes) {
    if (current) {
        current->step(bytes / kBytesPerStep);
        current->output_ += bytes;
        if (current->output_ > current->limits_.memory) {
            current->exceed("the template uses too much memory: its text is too long");
        }
    }
}

void template_begins() {
    if (current) {
        current->memory_ = 0;
        current->output_ = 0;
    }
}

#if CYLLAMA_COUNT_MEMORY
// Memory is counted in operator new of this extension, on a thread that evaluates.
struct TemplateMemory {
    static size_t size_of(void * memory) {
#ifdef __APPLE__
        return malloc_size(memory);
#else
        return malloc_usable_size(memory);
#endif
    }

    static bool counts() { return current && current->evaluations_; }

    static void * allocate(size_t bytes) {
        if (counts()) {
            const size_t held = static_cast<size_t>(std::max<int64_t>(current->memory_, 0));
            if (bytes > current->limits_.memory || held + bytes > current->limits_.memory) {
                current->exceed("the template uses too much memory");
            }
            current->step(1 + bytes / kBytesPerStep);
            current->check_stack();
        }
        void * memory = std::malloc(std::max<size_t>(bytes, 1));
        while (!memory) {
            if (const std::new_handler handler = std::get_new_handler()) {
                handler();
            } else {
                throw std::bad_alloc();
            }
            memory = std::malloc(std::max<size_t>(bytes, 1));
        }
        if (counts()) {
            current->memory_ += static_cast<int64_t>(size_of(memory));
            current->most_memory_ =
                std::max(current->most_memory_, static_cast<size_t>(std::max<int64_t>(current->memory_, 0)));
        }
        return memory;
    }

    static void release(void * memory) noexcept {
        if (memory && counts()) {
            current->memory_ -= static_cast<int64_t>(size_of(memory));
        }
        std::free(memory);
    }
};
#endif

} // namespace cyllama

#if CYLLAMA_COUNT_MEMORY
void * operator new(size_t bytes) { return cyllama::TemplateMemory::allocate(bytes); }
void operator delete(void * memory) noexcept { cyllama::TemplateMemory::release(memory); }
void operator delete(void * memory, size_t) noexcept { cyllama::TemplateMemory::release(memory); }
#endif
