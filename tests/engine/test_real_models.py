"""Isolation with a real model, SmolLM2, which repeats names that it has read: each guest hears their own only."""

from __future__ import annotations

import random

from cyllama import LLM
from cyllama.engine import Request

from ..support.cold_start import EXACT, NEARLY_TIED, ColdStart
from ..support.harness import in_threads, settled
from ..support.real_models import needs, path_of

pytestmark = needs("smollm2")

N_GUESTS = 6


def made_up_names(rng: random.Random, n: int) -> list[str]:
    names = set[str]()
    while len(names) < n:
        syllables = [rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3)]
        names.add("".join(syllables).capitalize())
    return sorted(names)


def test_many_guests_hear_their_own_names_and_no_other(requests: list[Request]):
    """There are cells for half of them, and host memory for one: most are evaluated again for their next turn."""
    names = made_up_names(random.Random(4), N_GUESTS)
    heard: dict[str, str] = {}
    with LLM(path_of("smollm2"), **EXACT, n_parallel=3, kv_cells=256, host_cache_mb=3) as llm:
        cold = ColdStart(llm)

        def stay(name: str) -> None:
            session = llm.session()
            session(f"Notes about a guest.\nName: {name}\nDay 1: The guest", max_tokens=6)
            with session.fork() as branch:
                branch("\nDay 2: The guest", max_tokens=4)
                heard[name] = branch("\nName:", max_tokens=6)
            heard[name] += session("\nName:", max_tokens=6)

        in_threads([lambda name=name: stay(name) for name in names])
        settled(llm)
        llm._runtime.running_engine().check_integrity()
        for request in requests:
            if request.tokens:
                assert request.error is None
                cold.check(request, NEARLY_TIED)
        cold.close()
    for name in names:
        assert not [other for other in names if other != name and other in heard[name]]
    assert sum(heard[name].count(name) for name in names) > N_GUESTS, "more than half of the times"
