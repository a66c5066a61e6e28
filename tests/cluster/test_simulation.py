"""The simulation of docs/scaling.md: it routes as the application does, and shows what the page says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.cases.cluster import POLICIES, Setup, moved, preferences, requests_of, simulate
from ray_cyllama.ranking import digest64, ranked

from ..support.source_tree import ROOT

SMALL = Setup(replicas=16, sessions=8000, seconds=360)


def test_it_prefers_the_replicas_that_the_application_prefers():
    names = [f"replica {i}" for i in range(12)]
    keys = [f"key {i}" for i in range(50)]
    found = preferences(np.array([digest64(key) for key in keys], np.uint64), len(names), len(names))
    assert [[names[i] for i in row] for row in found] == [ranked(key, names) for key in keys]


def test_it_always_gives_the_same():
    assert simulate(SMALL, "hash and spill-over") == simulate(SMALL, "hash and spill-over")


def test_hashes_keep_the_cache_and_spill_over_keeps_the_waiting_time():
    crowded = SMALL._replace(alike=0.4)  # most of them have one key, which is too much for one replica
    requests = requests_of(crowded)
    random, hashed, spilling = (simulate(crowded, policy, requests) for policy in POLICIES)
    assert random.cached < 0.1 < 0.8 < spilling.cached <= hashed.cached
    assert spilling.first_token_p99 < 0.1 * hashed.first_token_p99
    assert spilling.elsewhere > hashed.elsewhere == 0
    assert spilling.busiest < hashed.busiest


def test_one_replica_is_the_same_whatever_the_policy_is():
    alone = SMALL._replace(replicas=1, sessions=500)
    assert len({simulate(alone, policy) for policy in POLICIES}) == 1


@pytest.mark.parametrize(("before", "after", "share"), [(10, 11, 1 / 11), (10, 9, 1 / 10), (10, 5, 1 / 2)])
def test_only_the_keys_of_what_comes_or_goes_move(before: int, after: int, share: float):
    found = moved(20_000, before, after)
    assert abs(found["hash"] - share) < 0.02
    assert found["modulo"] > found["hash"]


def test_the_benchmark_prints_and_draws_what_came_out(tmp_path: Path):
    picture = tmp_path / "scaling.svg"
    printed = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "scaling.py"), "--small", "--svg", str(picture)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "integrations")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "16 replicas" in printed
    assert "hash and spill-over: prompt tokens cached" in printed
    [title] = ElementTree.parse(picture).getroot().findall("{http://www.w3.org/2000/svg}title")
    assert title.text == ElementTree.parse(ROOT / "docs" / "scaling.svg").getroot()[0].text
