"""Wall time of what callers wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyllama import Stream

SETTLE_SECONDS = 0.5


def wall_seconds(calls: Sequence[Callable[[], object]]) -> float:
    """Run functions at once, each on a thread of its own; return the seconds until the last has returned."""
    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(time.sleep, [0.01] * len(calls)))  # starts the threads
        start = time.perf_counter()
        for future in [pool.submit(call) for call in calls]:
            future.result()
        return time.perf_counter() - start


def first_chunk_seconds(start_stream: Callable[[], Stream]) -> float:
    """Start a stream and read it to its end; return the seconds until its first chunk."""
    start = time.perf_counter()
    with start_stream() as stream:
        next(stream)
        first = time.perf_counter() - start
        for _ in stream:
            pass
    return first


def settle() -> None:
    """Wait until the threads of who was measured last, which look out for more work, have gone to sleep."""
    time.sleep(SETTLE_SECONDS)
