// Text and paths between Python and C++.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

namespace nb = nanobind;

/// Text of llama.cpp as str. A file may hold any bytes: invalid UTF-8 is replaced, not refused.
nb::str to_str(const std::string & text);

/// A path as str, as os.fsdecode() returns it.
nb::str path_to_str(const std::string & path);

/// A str, bytes or os.PathLike as the operating system takes it. ValueError if it contains a NUL.
std::string to_path(nb::handle path);
