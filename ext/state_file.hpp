// Files that are complete or absent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// Writes a file; returns 0 or an errno. It replaces an old file only when it is complete and on the disk.
int write_file(const std::string & path, const uint8_t * bytes, size_t size);

/// Appends the content of a regular file to `bytes`; returns 0 or an errno.
int read_file(const std::string & path, std::vector<uint8_t> & bytes);
