// The devices that this build of llama.cpp can compute on.
#pragma once

#include <cstdint>

/// Memory of all GPUs, in bytes.
int64_t gpu_memory();

/// Throws in a forked child whose parent has used a GPU: the GPU's driver fails there, and ggml ends the process. To be
/// called before a process uses a device for the first time.
void check_gpus_after_fork();
