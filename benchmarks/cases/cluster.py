"""Sessions on many replicas, simulated: which prompt tokens are cached, and how long requests wait, by their routing.

It is a model, not a measurement: replicas work off their requests at fixed rates. Only the routing is the real one: the
preferences are those of ``ray_cyllama.ranking``. Equal arguments give equal results.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_cyllama.ranking import NEAR, digest64

Policy = Literal["random", "hash", "hash and spill-over"]
POLICIES: tuple[Policy, ...] = ("random", "hash", "hash and spill-over")

N_RANKS = 1 + NEAR
CHUNK = 50_000  # keys that are ranked at once
TICK = 0.25  # seconds


class Setup(NamedTuple):
    """What is simulated.

    Attributes:
        replicas: How many replicas there are.
        sessions: How many sessions begin, evenly over the time.
        seconds: How long that takes.
        turns: Turns of a session, on average.
        pause: Seconds between two turns, on average.
        first_tokens: Tokens of a system prompt.
        question_tokens: New tokens of a turn.
        answer_tokens: Tokens of an answer.
        prefill_rate: Prompt tokens that a replica evaluates in a second.
        decode_rate: Tokens that it generates in a second, of all requests together.
        n_parallel: Requests that it answers together: with as many it has no room.
        alike: Share of the sessions that begin like many others. They have one of ten keys, and the most popular of
            these a third of them.
    """

    replicas: int = 100
    sessions: int = 1_000_000
    seconds: float = 7200
    turns: float = 5
    pause: float = 60
    first_tokens: int = 500
    question_tokens: int = 120
    answer_tokens: int = 180
    prefill_rate: float = 30_000
    decode_rate: float = 3000
    n_parallel: int = 16
    alike: float = 0.06


class Outcome(NamedTuple):
    """What came out.

    Attributes:
        cached: Share of the prompt tokens of second and later turns that were cached.
        first_token: Median of the seconds to the first token.
        first_token_p99: Its 99th percentile.
        busiest: Work of the busiest replica, as a multiple of the mean.
        elsewhere: Share of the requests that were answered by another replica than the first of their key.
    """

    cached: float
    first_token: float
    first_token_p99: float
    busiest: float
    elsewhere: float


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return what ``ray_cyllama.ranking.mix`` does, for an array."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def preferences(keys: NDArray[np.uint64], n_replicas: int, n_ranks: int = N_RANKS) -> NDArray[np.int64]:
    """Return the replicas that each key prefers, the first one first: keys x ranks.

    Args:
        keys: Digests of the keys.
        n_replicas: How many replicas there are.
        n_ranks: How many of them to return.
    """
    names = np.array([digest64(f"replica {i}") for i in range(n_replicas)], np.uint64)
    n_ranks = min(n_ranks, n_replicas)
    found: list[NDArray[np.int64]] = []
    for start in range(0, len(keys), CHUNK):
        weights = mix(keys[start : start + CHUNK, None] ^ names[None, :])
        best = np.argpartition(weights, n_replicas - n_ranks, axis=1)[:, n_replicas - n_ranks :]
        order = np.argsort(np.take_along_axis(weights, best, axis=1), axis=1)[:, ::-1]
        found.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(found)


class Requests(NamedTuple):
    """All requests, in the order in which they come.

    Attributes:
        times: When, in seconds.
        sessions: Of which session.
        turns: Which turn of it, from 0 on.
        keys: The key of each session.
    """

    times: NDArray[np.float64]
    sessions: NDArray[np.int64]
    turns: NDArray[np.int64]
    keys: NDArray[np.uint64]


def requests_of(setup: Setup, seed: int = 1) -> Requests:
    """Return the requests of a simulation."""
    rng = np.random.default_rng(seed)
    n = setup.sessions
    n_turns = rng.geometric(1 / setup.turns, n)
    sessions = np.repeat(np.arange(n), n_turns)
    first = np.cumsum(n_turns) - n_turns
    turns = np.arange(len(sessions)) - np.repeat(first, n_turns)
    pauses = rng.exponential(setup.pause, len(sessions))
    pauses[first] = 0
    passed = np.cumsum(pauses)
    times = np.repeat(rng.uniform(0, setup.seconds, n) - passed[first], n_turns) + passed
    keys = rng.integers(0, 2**63, n, np.uint64)
    popular = rng.random(n) < setup.alike
    shares = 1 / np.arange(1, 11)
    keys[popular] = rng.choice(10, int(popular.sum()), p=shares / shares.sum()).astype(np.uint64)
    keys[popular] = mix(keys[popular])
    order = np.argsort(times, kind="stable")
    order = order[times[order] < setup.seconds]
    return Requests(times[order], sessions[order], turns[order], keys)


def simulate(setup: Setup, policy: Policy, requests: Requests | None = None) -> Outcome:
    """Simulate the routing of requests, and return what came out.

    Args:
        setup: What is simulated.
        policy: How requests are routed.
        requests: The requests, where they are known.
    """
    requests = requests_of(setup) if requests is None else requests
    cluster = _Cluster(setup, policy, requests)
    for batch in _ticks(requests.times):
        cluster.route(batch)
    return cluster.outcome()


def _ticks(times: NDArray[np.float64]) -> Iterator[slice]:
    """Yield which requests come in each tick."""
    n_ticks = int(times[-1] / TICK) + 1
    ends = np.searchsorted(times, TICK * np.arange(1, n_ticks + 1))
    begin = 0
    for end in ends.tolist():
        yield slice(begin, end)
        begin = end


class _Cluster:
    """Replicas, what they know of sessions, and how much work waits at each."""

    def __init__(self, setup: Setup, policy: Policy, requests: Requests) -> None:
        self._setup = setup
        self._policy = policy
        self._requests = requests
        self._rng = np.random.default_rng(2)
        self._ranks = preferences(requests.keys, setup.replicas)
        # What each of these replicas knows of a session. Of all others no session comes back in time.
        self._known = np.zeros(self._ranks.shape, np.int32)
        self._waiting = np.zeros(setup.replicas)  # seconds of work
        self._worked = np.zeros(setup.replicas)
        n = len(requests.times)
        self._cached = np.zeros(n, np.int32)
        self._prompts = np.zeros(n, np.int32)
        self._first_token = np.zeros(n, np.float32)
        self._n_elsewhere = 0
        self._room = setup.n_parallel * setup.answer_tokens / setup.decode_rate

    def route(self, batch: slice) -> None:
        """Route the requests of one tick, and let the replicas work for as long as that takes."""
        setup = self._setup
        sessions, turns = self._requests.sessions[batch], self._requests.turns[batch]
        if len(sessions):
            replicas, ranks = self._choose(sessions)
            spoken = turns * (setup.question_tokens + setup.answer_tokens) + setup.first_tokens
            prompts = spoken + setup.question_tokens
            is_ranked = ranks >= 0
            cached = np.where(is_ranked, self._known[sessions, np.maximum(ranks, 0)], 0)
            self._known[sessions[is_ranked], ranks[is_ranked]] = (prompts + setup.answer_tokens)[is_ranked]
            prefill = (prompts - cached) / setup.prefill_rate
            waiting = np.maximum(0, self._waiting[replicas] - self._room)
            self._first_token[batch] = waiting + prefill
            self._cached[batch], self._prompts[batch] = cached, prompts
            work = np.bincount(replicas, prefill + setup.answer_tokens / setup.decode_rate, setup.replicas)
            self._waiting += work
            self._worked += work
            self._n_elsewhere += int((ranks != 0).sum())
        self._waiting = np.maximum(0, self._waiting - TICK)

    def _choose(self, sessions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the replica of each request, and which of the session's preferences it is; -1 for none of them."""
        ranks = self._ranks[sessions]
        if self._policy == "random":
            replicas = self._rng.integers(0, self._setup.replicas, len(sessions))
            is_rank = ranks == replicas[:, None]
            return replicas, np.where(is_rank.any(axis=1), is_rank.argmax(axis=1), -1)
        chosen = np.zeros(len(sessions), np.int64)
        if self._policy == "hash" or ranks.shape[1] == 1:
            return ranks[:, 0], chosen
        waiting = self._waiting[ranks]
        near = 1 + waiting[:, 1:].argmin(axis=1)
        rows = np.arange(len(sessions))
        is_full = waiting[:, 0] >= self._room
        chosen = np.where(is_full & (waiting[rows, near] < self._room), near, chosen)
        replicas = ranks[rows, chosen]
        idlest = self._waiting.argmin()
        is_lost = is_full & (chosen == 0) & (self._waiting[idlest] < self._room)
        return np.where(is_lost, idlest, replicas), np.where(is_lost, -1, chosen)

    def outcome(self) -> Outcome:
        """Return what came out."""
        later = self._requests.turns > 0
        median, p99 = np.percentile(self._first_token, [50, 99])
        return Outcome(
            cached=float(self._cached[later].sum(dtype=np.int64) / self._prompts[later].sum(dtype=np.int64)),
            first_token=float(median),
            first_token_p99=float(p99),
            busiest=float(self._worked.max() / self._worked.mean()),
            elsewhere=self._n_elsewhere / len(self._first_token),
        )


def moved(n_keys: int, before: int, after: int) -> dict[str, Any]:
    """Return which share of keys another replica is the first of, where there are more or fewer: ours, and modulo."""
    keys = np.random.default_rng(3).integers(0, 2**63, n_keys, np.uint64)
    first, then = (preferences(keys, n, 1)[:, 0] for n in (before, after))
    modulo = keys % np.uint64(before) != keys % np.uint64(after)
    return {"hash": float((first != then).mean()), "modulo": float(modulo.mean())}
