// The identity of this process.
#pragma once

/// The process id. A child of fork() has another id, and none of the parent's other threads.
long current_process();
