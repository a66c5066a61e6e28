// The compiler includes this before every C file of ggml-cpu: a thread that waits for long yields the processor.
//
// ggml's threads meet at a barrier after every operation, hundreds of times per token, and spin while they wait. That is
// the fastest way while every thread has a core of its own. On a machine with other work, two threads may share a core:
// then the first one spins for a whole time slice, while the second one, for which it waits, cannot run. A generation
// becomes ten or a hundred times slower. So a wait that lasts longer than the imbalance of any operation yields the
// processor. That costs nothing if no other thread wants to run.
//
// ggml_thread_cpu_relax(void) is the definition: it gets another name. ggml_thread_cpu_relax() is a call: it is replaced.
#pragma once

#include <sched.h>
#include <time.h>

#define CYLLAMA_RELAX_void ggml_thread_cpu_relax_once(void)
#define CYLLAMA_RELAX_ cyllama_spin_wait(ggml_thread_cpu_relax_once)
#define ggml_thread_cpu_relax(arguments) CYLLAMA_RELAX_##arguments

enum {
    CYLLAMA_SPINS_PER_LOOK = 32,     // to read the clock costs about as much as a spin
    CYLLAMA_NEW_WAIT_NS = 5000,      // after so long without a spin, another wait has begun
    CYLLAMA_PATIENCE_NS = 50 * 1000, // spin for so long, then yield whenever the clock is read
};

static inline long long cyllama_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static inline void cyllama_spin_wait(void (*relax)(void)) {
    static _Thread_local unsigned spins;
    static _Thread_local long long last_look, wait_began;
    relax();
    if (++spins % CYLLAMA_SPINS_PER_LOOK != 0) {
        return;
    }
    long long now = cyllama_now_ns();
    if (now - last_look > CYLLAMA_NEW_WAIT_NS) {
        wait_began = now;
    } else if (now - wait_began > CYLLAMA_PATIENCE_NS) {
        sched_yield();
        now = cyllama_now_ns(); // the time that other threads ran does not end this wait
    }
    last_look = now;
}
