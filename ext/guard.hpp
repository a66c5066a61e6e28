// Locks and the GIL together. These rules keep this extension free of deadlocks and data races:
//
// 1. No thread blocks on a native lock while it holds the GIL: it waits for a lock that is not free with the GIL released.
//    (A thread that holds a native lock may wait for the GIL, when a computation ends or a callback begins.)
// 2. Locks are taken in the order context, batch, adapters of the model, sampler (samplers by address); a model's use count
//    is a leaf: no thread blocks while it holds its mutex.
// 3. Python code that runs while its thread holds a native lock (a callback, a finalizer that the garbage collector starts)
//    never waits for another one: it gets an exception instead.
#pragma once

#include "gil.hpp"
#include "lock.hpp"
#include "logging.hpp"

/// Holds a `Guarded` for the length of a scope. Created and destroyed with the GIL held. After the lock is released, Python
/// gets what llama.cpp logged meanwhile.
class Guard {
  public:
    /// `what` names the object in errors. `nested`: the caller holds another lock, in the order of rule 2.
    Guard(Guarded & guarded, const char * what, bool nested = false);
    ~Guard() { guarded_.unlock(); }
    Guard(const Guard &) = delete;
    Guard & operator=(const Guard &) = delete;

  private:
    LogDelivery delivery_; // first member, so that it is destroyed after the unlock
    Guarded & guarded_;
};
