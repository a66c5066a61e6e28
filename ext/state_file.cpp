#include "state_file.hpp"

#include <atomic>
#include <cerrno>
#include <cstdio>

#ifdef _WIN32
#include <io.h>
#else
#include <unistd.h>
#endif

#include "files.hpp"
#include "process.hpp"

// Waits until the content of a file is on its disk; returns 0 on success.
static int sync(FILE * file) {
#ifdef _WIN32
    return _commit(_fileno(file));
#else
    return fsync(fileno(file));
#endif
}

int write_file(const std::string & path, const uint8_t * bytes, size_t size) {
    if (const int error = check_regular(path)) {
        return error;
    }
    std::string partial; // a name of its own: other threads may write the same file
    FILE * file = nullptr;
    do {
        static std::atomic<unsigned> counter{0};
        partial = path + "." + std::to_string(current_process()) + "-" + std::to_string(++counter) + ".partial";
        file = std::fopen(partial.c_str(), "wbx");
    } while (!file && errno == EEXIST); // left by a process that was killed
    if (!file) {
        return errno;
    }
    const bool written = std::fwrite(bytes, 1, size, file) == size && std::fflush(file) == 0 && sync(file) == 0;
    int error = written ? 0 : errno;
    if (std::fclose(file) != 0 && !error) {
        error = errno;
    }
    if (!error && std::rename(partial.c_str(), path.c_str()) != 0) {
        error = errno;
    }
    if (error) {
        std::remove(partial.c_str());
    }
    return error;
}

int read_file(const std::string & path, std::vector<uint8_t> & bytes) {
    if (const int error = check_regular(path)) {
        return error;
    }
    FILE * file = std::fopen(path.c_str(), "rb");
    if (!file) {
        return errno;
    }
    uint8_t buffer[1 << 16];
    size_t n = 0;
    errno = 0;
    while ((n = std::fread(buffer, 1, sizeof buffer, file)) > 0) {
        bytes.insert(bytes.end(), buffer, buffer + n);
    }
    const int error = std::ferror(file) ? errno : 0;
    std::fclose(file);
    return error;
}
