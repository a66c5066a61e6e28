#include "process.hpp"

#ifdef _WIN32
#include <process.h>
long current_process() { return _getpid(); }
#else
#include <unistd.h>
long current_process() { return getpid(); }
#endif
