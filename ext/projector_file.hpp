// The file of a projector, checked before mtmd loads it.
#pragma once

#include <string>

/// Returns why the file cannot be a projector, or is damaged; empty if it seems fine. mtmd divides by numbers of the metadata,
/// allocates by them, and reads tensors without looking at the size of the file.
std::string problem_of_projector(const std::string & path);
