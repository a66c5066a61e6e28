"""Which replica a key goes to: always the same one, few move when replicas come and go, and busy ones are passed."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ray_cyllama.ranking import NEAR, groups, ranked

replica_names = st.lists(st.text("abcdef0123456789", min_size=8, max_size=8), min_size=1, max_size=12, unique=True)
keys = st.text(min_size=1, max_size=40)


@given(keys, replica_names, st.randoms())
def test_the_order_does_not_depend_on_the_order_of_the_replicas(key: str, replicas: list[str], random):
    shuffled = random.sample(replicas, len(replicas))
    assert ranked(key, shuffled) == ranked(key, replicas)
    assert sorted(ranked(key, replicas)) == sorted(replicas)


@given(keys, replica_names)
def test_a_replica_that_goes_away_leaves_the_others_in_their_order(key: str, replicas: list[str]):
    order = ranked(key, replicas)
    for gone in replicas:
        assert ranked(key, [each for each in replicas if each != gone]) == [each for each in order if each != gone]


def test_replicas_get_equal_shares_and_few_keys_move():
    before = [f"replica {i}" for i in range(10)]
    after = [*before, "replica 10"]
    moved: Counter[str] = Counter()
    shares: Counter[str] = Counter()
    n = 5000
    for i in range(n):
        first, then = ranked(f"key {i}", before)[0], ranked(f"key {i}", after)[0]
        shares[first] += 1
        if then != first:
            moved[then] += 1
    assert set(moved) == {"replica 10"}
    assert 0.8 * n / 11 < moved["replica 10"] < 1.2 * n / 11
    assert all(0.8 * n / 10 < share < 1.2 * n / 10 for share in shares.values())


@given(keys, replica_names, st.data())
def test_a_request_goes_to_the_first_group_that_has_room(key: str, replicas: list[str], data: st.DataObject):
    order = ranked(key, replicas)
    busy = data.draw(st.sets(st.sampled_from(replicas)))
    found = groups(order, lambda replica: replica not in busy)
    free = [each for each in order if each not in busy]
    if order[0] not in busy:
        assert found[0] == [order[0]]
    elif free:
        near = [each for each in free if each in order[1 : 1 + NEAR]]
        assert found[0] == (near or free)
    else:  # it waits where its session is
        assert found[0] == [order[0]]
    assert {each for group in found for each in group} == set(replicas), "no replica is left out"
