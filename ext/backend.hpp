// What the process can run on.
#pragma once

#include <cstdint>

/// Bytes of memory of all GPUs.
int64_t gpu_memory();

/// Throws in a forked child whose parent has used a GPU: its driver fails there, and ggml ends the process on that. To be called
/// before anything that uses a device for the first time in a process.
void check_gpus_after_fork();
