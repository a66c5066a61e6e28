// The exit of the interpreter while other threads compute.
//
// Daemon threads outlive the interpreter, but what they compute must not outlive the static objects that exit() destroys.
// So the exit waits for the computations in progress, and a thread that would begin another one sleeps.
#pragma once

/// Never returns.
[[noreturn]] void sleep_forever();

/// Counts one more computation. Never returns if another thread shuts the interpreter down.
void begin_computation();

/// Counts one computation less.
void end_computation();

/// Whether another thread shuts the interpreter down, so that this thread's computation must end. For llama.cpp's
/// callbacks.
bool must_end();

/// Called once, by the thread that shuts the interpreter down: from here on, must_end() is true on every other thread.
void begin_shutdown();

/// Waits until no thread computes, at most 10 seconds. To be called without the GIL, which callbacks of computations need.
void await_computations();
