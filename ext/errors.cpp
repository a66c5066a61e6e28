#include "errors.hpp"

#include <nanobind/nanobind.h>

#include <cerrno>
#include <cmath>
#include <exception>

#include "conversion.hpp"
#include "modules.hpp"
#include "text.hpp"

void throw_value_error(const std::string & message) { throw nb::value_error(message.c_str()); }

void throw_index_error(const std::string & message) { throw nb::index_error(message.c_str()); }

void throw_type_error(const std::string & message) { throw nb::type_error(message.c_str()); }

void check_range(const char * name, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high) {
        throw_value_error(std::string(name) + " must be from " + std::to_string(low) + " to " + std::to_string(high) +
                          ", not " + std::to_string(value));
    }
}

void check_finite(const char * name, float value) {
    if (!std::isfinite(value)) {
        throw_value_error(std::string(name) + " must be a finite number, not " + std::to_string(value));
    }
}

void raise(ErrorType type, const std::string & message) {
    PyErr_SetObject(type == ErrorType::kValue    ? PyExc_ValueError
                    : type == ErrorType::kMemory ? PyExc_MemoryError
                                                 : PyExc_RuntimeError,
                    to_str(message).ptr());
    throw nb::python_error();
}

void raise_os_error(const std::string & path, int error) {
    errno = error;
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    throw nb::python_error();
}

// llama.cpp cuts texts at any byte. An exception whose message is not valid UTF-8 gets one that is.
void init_exceptions() {
    nb::register_exception_translator([](const std::exception_ptr & thrown, void *) {
        try {
            std::rethrow_exception(thrown);
        } catch (const std::exception & error) {
            const std::string text = error.what(), valid = valid_utf8(text);
            if (text == valid) {
                throw; // to nanobind, which maps the types of exceptions
            }
            PyErr_SetString(PyExc_RuntimeError, valid.c_str());
        }
    });
}
