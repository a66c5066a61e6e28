#include "files.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "errors.hpp"

int check_regular(const std::string & path) {
    std::error_code error;
    const auto type = std::filesystem::status(path, error).type();
    if (type == std::filesystem::file_type::directory) {
        return EISDIR;
    }
    const bool fine = type == std::filesystem::file_type::regular || type == std::filesystem::file_type::not_found;
    return fine ? 0 : error ? error.value() : EINVAL;
}

void check_gguf(const std::string & path) {
    if (const int error = check_regular(path)) {
        raise_os_error(path, error);
    }
    FILE * file = std::fopen(path.c_str(), "rb");
    if (!file) {
        raise_os_error(path, errno);
    }
    char magic[4] = {};
    errno = 0;
    const size_t n = std::fread(magic, 1, sizeof magic, file);
    const int read_error = errno;
    std::fclose(file);
    if (n < sizeof magic && read_error != 0) {
        raise_os_error(path, read_error);
    }
    if (n < sizeof magic || std::memcmp(magic, "GGUF", sizeof magic) != 0) {
        raise(ErrorType::kValue, path + (n == 0 ? " is empty" : " does not start with \"GGUF\"") + ": not a GGUF file");
    }
}
