// Files, as far as they can be checked before llama.cpp opens them.
#pragma once

#include <string>

/// Returns 0, or an errno: a path that is not a regular file (a FIFO, a device) may block or never end. To be called before
/// the file is opened. A path that does not exist is fine.
int check_regular(const std::string & path);

/// Throws for a file that is not GGUF: OSError where the operating system refuses it, else ValueError. To be called with
/// the GIL.
void check_gguf(const std::string & path);
