// The log of common/fit.cpp, which CMakeLists.txt makes call these functions. With llama.cpp's own, it would replace the
// callback of the log by one on its stack, while other threads log, and report to stderr.
#include "fit_log.hpp"

#include <cstdarg>
#include <cstdio>
#include <utility>

#include "llama.h"

struct common_log;

static thread_local std::string warnings;

extern "C" {
LLAMA_API void cyllama_fit_log_get(ggml_log_callback * callback, void ** data) {
    *callback = nullptr;
    *data = nullptr;
}

LLAMA_API void cyllama_fit_log_set(ggml_log_callback, void *) {}
}

int cyllama_fit_verbosity() { return 2; } // LOG_LEVEL_WARN

common_log * cyllama_fit_log_main() { return nullptr; }

void cyllama_fit_log_add(common_log *, enum ggml_log_level, const char * format, ...) {
    char line[1024] = {};
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    std::string text(line);
    while (!text.empty() && text.back() == '\n') {
        text.pop_back();
    }
    warnings += (warnings.empty() ? "" : "; ") + text;
}

std::string take_fit_warnings() { return std::exchange(warnings, {}); }
