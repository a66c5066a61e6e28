"""Fair queueing, simulated: equal service for all who always ask, no empty place, and no endless wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.engine.fair_queue import FairQueue

QUANTUM, FIRST_QUANTUM, MOST_BEGUN = 32, 16, 64
ENDLESS = 10**9
SPREAD = 3 * QUANTUM  # by which the service of two may differ that always ask

Item = tuple[str, str, int]  # scope, flow, number


class Desk:
    """Serves items as the engine does: a token of each in every step, in a number of places."""

    def __init__(self, places: int, *, most_begun: int = MOST_BEGUN) -> None:
        self.queue: FairQueue[Item] = FairQueue(QUANTUM, FIRST_QUANTUM, most_begun)
        self.places = places
        self.running: list[Item] = []
        self.left: dict[Item, int] = {}
        self.got: Counter[Item] = Counter()
        self.begun: dict[Item, int] = {}  # the step in which an item was served first
        self.time = 0

    def add(self, scope: str, flow: str, length: int) -> Item:
        item = (scope, flow, len(self.got) + len(self.left))
        self.left[item] = length
        self.queue.add(item, scope, flow)
        return item

    def step(self) -> list[Item]:
        """Serve a token to each; return what ended."""
        for item in self.queue.in_order():
            if len(self.running) == self.places:
                urgent = not self.got[item]
                others = [each for each in self.running if self.queue.may_displace(item, each, urgent=urgent)]
                if not others:
                    break
                other = max(others, key=self.queue.service)
                self.queue.displace(other)
                self.running.remove(other)
            self.queue.start(item)
            self.running.append(item)
        assert len(self.running) == min(self.places, len(self.left)), "no place is empty while an item waits"
        for item in self.running:
            self.queue.charge(item, 1)
            self.got[item] += 1
            self.begun.setdefault(item, self.time)
            self.left[item] -= 1
        self.time += 1
        ended = [item for item in self.running if not self.left[item]]
        for item in ended:
            self.queue.remove(item)
            self.running.remove(item)
            del self.left[item]
        return ended

    def served(self, scope: str) -> int:
        return sum(n for item, n in self.got.items() if item[0] == scope)


lengths = st.integers(1, 5 * QUANTUM)
scopes = st.sampled_from("abc")
arrivals = st.lists(st.tuples(st.integers(0, 3 * QUANTUM), scopes, lengths), max_size=60)


@given(st.integers(1, 6), arrivals)
def test_all_are_served_to_their_end_and_no_place_is_empty_while_one_waits(
    places: int, arrivals: list[tuple[int, str, int]]
):
    desk = Desk(places)
    for pause, scope, length in arrivals:
        desk.add(scope, f"{len(desk.left)}-{desk.time}-{length}", length)
        for _ in range(pause):
            desk.step()
    while desk.left:
        desk.step()
    assert sum(desk.got.values()) == sum(length for _, _, length in arrivals)


def keep_busy(desk: Desk, steps: int, arrivals: Iterable[tuple[int, str, int]]) -> None:
    """Serve for some steps, beside others that come and go."""
    later = iter(arrivals)
    due, scope, length = next(later, (ENDLESS, "", 0))
    for _ in range(steps):
        while due <= 0:
            desk.add(scope, f"passing {desk.time} {length} {len(desk.left)}", length)
            due, scope, length = next(later, (ENDLESS, "", 0))
        due -= 1
        desk.step()


@given(st.integers(1, 6), st.integers(2, 12), arrivals)
def test_conversations_of_one_tenant_get_equal_service(places: int, n: int, arrivals: list[tuple[int, str, int]]):
    desk = Desk(places)
    items = [desk.add("a", f"{i}", ENDLESS) for i in range(n)]
    for _ in range(8):
        keep_busy(desk, 2 * QUANTUM, arrivals)
        got = [desk.got[item] for item in items]
        if len(items) >= places:  # otherwise all run, as long as no other tenant needs a place
            assert max(got) - min(got) <= SPREAD


@given(st.integers(1, 6), st.lists(st.integers(6, 20), min_size=2, max_size=4))
def test_tenants_get_equal_service_however_many_conversations_they_have(places: int, sizes: list[int]):
    desk = Desk(places)
    for scope, size in zip("abcd", sizes, strict=False):
        for i in range(size):
            desk.add(scope, f"{i}", ENDLESS)
    for _ in range(8):
        keep_busy(desk, 2 * QUANTUM, [])
        served = [desk.served(scope) for scope, _ in zip("abcd", sizes, strict=False)]
        assert max(served) - min(served) <= SPREAD * places


@given(st.integers(1, 16), st.integers(1, 64))
def test_all_begin_before_one_is_far_ahead(places: int, n: int):
    desk = Desk(places)
    items = [desk.add("a", f"{i}", 4 * QUANTUM) for i in range(n)]
    while len(desk.begun) < n:
        assert max(desk.got.values(), default=0) <= FIRST_QUANTUM
        desk.step()
    assert set(desk.begun) == set(items)


@given(st.integers(1, 16), st.integers(0, 40), st.integers(0, 300))
def test_one_that_comes_later_begins_within_a_part_of_a_quantum(places: int, n: int, before: int):
    desk = Desk(places)
    for i in range(n):
        desk.add("a", f"{i}", ENDLESS)
    keep_busy(desk, before, [])
    item = desk.add("a", "late", 1)
    arrived, n_before = desk.time, n - len(desk.begun)  # others that have not begun
    most = FIRST_QUANTUM * (1 + n_before // places)
    keep_busy(desk, most + 1, [])
    assert desk.begun[item] - arrived <= most


@settings(max_examples=30)  # each is thousands of steps
@given(st.integers(1, 16), st.integers(1, 300))
def test_a_hundred_requests_of_one_tenant_do_not_hold_up_another(places: int, before: int):
    desk = Desk(places)
    for i in range(100):
        desk.add("many", f"{i}", ENDLESS)
    keep_busy(desk, before, [])
    item = desk.add("one", "single", 5 * QUANTUM)
    arrived = desk.time
    keep_busy(desk, 5 * QUANTUM + FIRST_QUANTUM + 1, [])
    assert desk.begun[item] - arrived <= FIRST_QUANTUM
    assert desk.got[item] >= min(1, places / 2) * 5 * QUANTUM - SPREAD


@pytest.mark.parametrize("of_one_tenant", [True, False])
@pytest.mark.parametrize("length", [1, 5, FIRST_QUANTUM, 40])
@pytest.mark.parametrize("places", [1, 2, 8])
def test_a_long_answer_gets_its_share_beside_an_endless_stream_of_short_ones(
    places: int, length: int, of_one_tenant: bool
):
    desk = Desk(places)
    long = desk.add("a", "long", ENDLESS)
    waits = longest = 0
    for i in range(4000):
        while len(desk.left) <= 2 * places:
            desk.add("a" if of_one_tenant else f"tenant {i}", f"{i} {len(desk.left)}", length)
        before = desk.got[long]
        desk.step()
        waits = 0 if desk.got[long] > before else waits + 1
        longest = max(longest, waits)
    share = places / (2 * places + 1)
    assert desk.got[long] >= 0.9 * share * desk.time - SPREAD
    assert longest <= 4 * SPREAD


def test_who_was_ahead_when_it_left_is_not_a_new_one_when_it_comes_back():
    desk = Desk(1)
    desk.add("a", "other", ENDLESS)
    item = desk.add("a", "back at once", 4)
    got = 0
    for _ in range(4000):
        if item in desk.step():
            got += 4
            item = desk.add("a", "back at once", 4)
    assert abs(got - 2000) <= SPREAD


def test_beyond_a_limit_those_that_have_begun_go_on_before_others_begin():
    desk = Desk(2, most_begun=8)
    for i in range(50):
        desk.add("a", f"{i}", 10 * QUANTUM)
    most = 0
    while desk.left:
        desk.step()
        most = max(most, sum(desk.got[item] > 0 for item in desk.left))
    assert most == 8


def test_prompts_count_too():
    queue: FairQueue[str] = FairQueue(QUANTUM, FIRST_QUANTUM, MOST_BEGUN)
    for item in ("short", "long"):
        queue.add(item, "a", item)
        queue.start(item)
        queue.charge(item, QUANTUM)
    queue.charge_extra("long", QUANTUM)
    for item in ("long", "short"):
        queue.displace(item)
    assert list(queue.in_order()) == ["short", "long"]


def test_a_queue_remembers_only_those_that_are_ahead():
    queue: FairQueue[int] = FairQueue(QUANTUM, FIRST_QUANTUM, MOST_BEGUN)
    queue.add(-1, "a", "stays")
    queue.start(-1)
    for i in range(5000):
        queue.add(i, "a", f"{i}")
        queue.add(i + 10_000, f"{i}", f"{i}")
        for item in (i, i + 10_000):
            queue.start(item)
            queue.charge(item, 3)
            queue.remove(item)
    sizes = [len(vars(clock)["_ahead"]) for clock in (queue._clock, queue._scopes["a"].clock)]
    assert max(sizes) < 500
