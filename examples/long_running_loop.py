"""A worker that goes on for ever: constant memory, whatever the prompts are like, bad ones included.

One LLM serves all jobs. A fixed ``n_ctx`` makes its context once and for all. What cannot be processed is refused with
an exception before anything is evaluated, and the LLM is usable after every one of them.

Run it with ``python examples/long_running_loop.py [model.gguf]``.
"""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cyllama import LLM, ContextSizeError, CyllamaError, PromptError

JOBS = 240
WARM_UP = 40


def jobs(count: int) -> Iterator[str]:
    """Yield beginnings of stories, with every tenth one unusable."""
    for number in range(count):
        if number % 20 == 5:
            yield "word " * 2000  # more than n_ctx
        elif number % 20 == 15:
            yield "half a character: \ud83d"  # a lone surrogate: no UTF-8
        else:
            yield f"Once upon a time there were {number} foxes" + ", and a hen" * (number % 30)


def resident_mib() -> float:
    """Return the memory that this process has in RAM; where only the peak is known, the peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: in bytes
    return pages * resource.getpagesize() / 2**20


def main(model_path: str | None = None) -> None:
    outcomes: Counter[str] = Counter()
    start = 0.0
    with LLM(model_path, temperature=0, max_tokens=8, n_ctx=512) as llm:
        for number, job in enumerate(jobs(JOBS)):
            if number == WARM_UP:  # by now all that is allocated once has been
                start = resident_mib()
            try:
                llm(job)
                outcomes["answered"] += 1
            except ContextSizeError:  # a service would shorten the prompt, or report it to the sender
                outcomes["too long"] += 1
            except PromptError:
                outcomes["no valid text"] += 1
            except CyllamaError as error:  # everything else that is raised on purpose
                outcomes[type(error).__name__] += 1
        end = resident_mib()
        stats = llm.stats

    print(f"{JOBS} jobs: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))
    print(f"contexts created: {stats.contexts_created}, reused: {stats.context_reuses}")
    print(f"resident memory after {WARM_UP} jobs: {start:.1f} MiB")
    print(f"resident memory after {JOBS} jobs: {end:.1f} MiB")
    print(f"grown by {end - start:.1f} MiB")


if __name__ == "__main__":
    main(*sys.argv[1:2])
