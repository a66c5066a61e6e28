// Included by the compiler before every C file of ggml-cpu: lets a thread that waits for long give way.
//
// ggml's threads meet at a barrier after every operation, hundreds of times per token, and wait there spinning. That is
// the fastest way while every thread has a core of its own. On a machine that is busy with something else too, two of them
// may share one: then the first spins for a whole time slice while the second, for which it waits, cannot run, and a
// generation becomes ten or a hundred times slower. So a wait that has lasted longer than any operation's imbalance yields
// the processor, which costs nothing where nobody else wants it.
//
// ggml_thread_cpu_relax(void) is the definition, which stays, under another name; ggml_thread_cpu_relax() is a use.
#pragma once

#include <sched.h>
#include <time.h>

#define CYLLAMA_RELAX_void ggml_thread_cpu_relax_once(void)
#define CYLLAMA_RELAX_ cyllama_spin_wait(ggml_thread_cpu_relax_once)
#define ggml_thread_cpu_relax(arguments) CYLLAMA_RELAX_##arguments

enum {
    CYLLAMA_SPINS_PER_LOOK = 32,     // a look at the clock costs about as much as a spin
    CYLLAMA_NEW_WAIT_NS = 5000,      // not spinning for so long: this is another wait
    CYLLAMA_PATIENCE_NS = 50 * 1000, // spin for so long, then yield at every look
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
        now = cyllama_now_ns(); // however long the others took, this is still the same wait
    }
    last_look = now;
}
