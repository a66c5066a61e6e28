// Limits on chat templates. They come with models from anywhere, and llama.cpp's interpreter has no limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>

namespace cyllama {

/// Thrown where a template reaches a limit. Its constructor allocates no memory.
struct TemplateLimitError : std::exception {
    explicit TemplateLimitError(const char * reason) : reason(reason) {}
    const char * what() const noexcept override { return reason; }

    const char * reason;
};

/// The limits of one call, which may render several times. While it exists, the work of its thread in templates is counted.
class TemplateBudget {
  public:
    struct Limits {
        size_t stack;   ///< most bytes of stack below the caller's frame
        uint64_t steps; ///< most evaluations, allocations, and pieces of 128 bytes that are copied or searched
        size_t memory;  ///< most bytes that one rendering holds, and most bytes that it outputs
    };

    explicit TemplateBudget(const Limits & limits);
    ~TemplateBudget();
    TemplateBudget(const TemplateBudget &) = delete;
    TemplateBudget & operator=(const TemplateBudget &) = delete;

    /// Throws if a limit was reached: the interpreter may have caught the first exception.
    void check() const;
    uint64_t steps() const { return steps_; }
    size_t most_memory() const { return most_memory_; }

  private:
    friend class TemplateEvaluation;
    friend void template_work(size_t bytes);
    friend void template_output(size_t bytes);
    friend void template_begins();
    friend struct TemplateMemory;

    [[noreturn]] void exceed(const char * reason);
    void step(uint64_t n);
    void check_stack();

    const Limits limits_;
    const uintptr_t lowest_;
    uint64_t steps_ = 0;
    int64_t memory_ = 0;
    size_t most_memory_ = 0, output_ = 0;
    size_t evaluations_ = 0; // in progress; memory is counted while there are any
    const char * exceeded_ = nullptr;
};

/// One evaluation of a node, or of a value within another one. Counts a step, and checks the depth of the stack.
class TemplateEvaluation {
  public:
    TemplateEvaluation();
    ~TemplateEvaluation();
    TemplateEvaluation(const TemplateEvaluation &) = delete;
    TemplateEvaluation & operator=(const TemplateEvaluation &) = delete;

  private:
    TemplateBudget * const budget_;
};

/// Counts the steps of work on `bytes` that neither evaluates nor allocates.
void template_work(size_t bytes);
/// Counts `bytes` of text that is put together.
void template_output(size_t bytes);
/// Counts `n` characters of text, and returns `n`.
inline int template_counted(int n) {
    template_output(n > 0 ? static_cast<size_t>(n) : 0);
    return n;
}
/// Begins a new rendering, with no memory in use.
void template_begins();

} // namespace cyllama
