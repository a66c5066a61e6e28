// Exceptions for Python.
#pragma once

#include <cstdint>
#include <string>

/// Throws nanobind's exception for ValueError, IndexError or TypeError. Usable without the GIL.
[[noreturn]] void throw_value_error(const std::string & message);
[[noreturn]] void throw_index_error(const std::string & message);
[[noreturn]] void throw_type_error(const std::string & message);

/// ValueError unless `low` <= `value` <= `high`; `name` is the argument's.
void check_range(const char * name, int64_t value, int64_t low, int64_t high);

/// ValueError for NaN and infinity; `name` is the argument's.
void check_finite(const char * name, float value);

enum class ErrorType { kValue, kMemory, kRuntime }; // ValueError, MemoryError, RuntimeError

/// Throws a Python exception. The message may contain text from a file, which need not be UTF-8: what() could not carry it.
/// To be called with the GIL.
[[noreturn]] void raise(ErrorType type, const std::string & message);

/// Throws OSError, FileNotFoundError and the like for errno `error`. To be called with the GIL.
[[noreturn]] void raise_os_error(const std::string & path, int error);
