// What common/fit.cpp reports, in place of its log.
#pragma once

#include <string>

/// Returns the warnings and errors that common/fit.cpp has reported on this thread since the last call.
std::string take_fit_warnings();
