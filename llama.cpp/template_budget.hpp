// What chat templates may use up. They come with models from anywhere, and llama.cpp's interpreter of them has no limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>

namespace cyllama {

/// What is thrown where a template reaches a limit. Made without allocating memory.
struct TemplateLimitError : std::exception {
    explicit TemplateLimitError(const char * reason) : reason(reason) {}
    const char * what() const noexcept override { return reason; }

    const char * reason;
};

/// The limits of one call, which may render several times. While it exists, it counts what its thread does in templates.
class TemplateBudget {
  public:
    struct Limits {
        size_t stack;   ///< bytes that may be used below the caller's frame
        uint64_t steps; ///< evaluations, allocations, and 128 bytes each of what is copied or searched
        size_t memory;  ///< bytes that one rendering may hold, and that it may output
    };

    explicit TemplateBudget(const Limits & limits);
    ~TemplateBudget();
    TemplateBudget(const TemplateBudget &) = delete;
    TemplateBudget & operator=(const TemplateBudget &) = delete;

    /// Throws if a limit was reached before: what is in between may have ignored it.
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
    size_t evaluations_ = 0; // that are going on: memory is counted while there are any
    const char * exceeded_ = nullptr;
};

/// One evaluation: of a node, or of a value inside of another one. Counts a step, and checks how deep they are nested.
class TemplateEvaluation {
  public:
    TemplateEvaluation();
    ~TemplateEvaluation();
    TemplateEvaluation(const TemplateEvaluation &) = delete;
    TemplateEvaluation & operator=(const TemplateEvaluation &) = delete;

  private:
    TemplateBudget * const budget_;
};

/// Counts the steps of work on so many bytes that neither evaluates nor allocates.
void template_work(size_t bytes);
/// Counts text that is put together.
void template_output(size_t bytes);
/// Counts so many characters of text, and returns the number as it is.
inline int template_counted(int n) {
    template_output(n > 0 ? static_cast<size_t>(n) : 0);
    return n;
}
/// Counts the memory of a new rendering.
void template_begins();

} // namespace cyllama
