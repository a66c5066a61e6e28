"""Which sequence holds which tokens: whatever is shared, moved, dropped or brought back, the next logits are right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyllama.engine.sequence import common_prefix
from cyllama.llama.llama_cpp import LlamaModel

from ..support.kv_desk import TOKENS, Desk

# -------------------- one at a time


def test_a_conversation_goes_on_from_what_it_has_evaluated(desk: Desk):
    sequence, known = desk.turn(TOKENS[:50])
    assert known == 0
    same, known = desk.turn(TOKENS[:70], sequence)
    assert same is sequence
    assert known == 50
    assert desk.cache.used_cells == 70


def test_a_prompt_that_is_known_completely_is_evaluated_from_its_last_token(desk: Desk):
    sequence, _ = desk.turn(TOKENS[:50])
    assert desk.turn(TOKENS[:50], sequence) == (sequence, 49)
    assert desk.turn(TOKENS[:20], sequence) == (sequence, 19)
    assert desk.cache.used_cells == 20


def test_a_conversation_that_takes_another_way_drops_its_tail(desk: Desk):
    sequence, _ = desk.turn(TOKENS[:50])
    assert desk.turn([*TOKENS[:30], *TOKENS[100:110]], sequence) == (sequence, 30)
    assert sequence.tokens == [*TOKENS[:30], *TOKENS[100:110]]
    assert desk.cache.used_cells == 40


def test_a_prompt_without_anything_in_common_empties_the_sequence(desk: Desk):
    sequence, _ = desk.turn(TOKENS[:50])
    other, known = desk.turn(TOKENS[500:510], sequence)
    assert known == 0
    assert other.tokens == TOKENS[500:510]
    assert desk.cache.used_cells == 10


def test_conversations_share_the_cells_of_a_common_prefix(desk: Desk):
    ada, _ = desk.turn(TOKENS[:50])
    bob, known = desk.turn([*TOKENS[:40], *TOKENS[100:120]])
    assert known == 40
    assert desk.cache.used_cells == 70
    desk.forget(ada)
    desk.cache.check_integrity()
    assert desk.cache.used_cells == 60
    assert desk.turn([*bob.tokens, 5], bob) == (bob, 60)


def test_what_keeps_to_itself_shares_in_neither_direction(desk: Desk):
    desk.turn(TOKENS[:50])
    assert desk.turn(TOKENS[:50], scope=None)[1] == 0
    desk.turn(TOKENS[200:250], scope=None)
    assert desk.turn(TOKENS[200:250])[1] == 0


def test_a_branch_and_its_origin_go_their_own_ways(desk: Desk):
    origin, _ = desk.turn(TOKENS[:50])
    branch = desk.branch(origin)
    desk.cache.check_integrity()
    assert desk.cache.used_cells == 50
    desk.turn(TOKENS[:60], origin)
    desk.turn([*TOKENS[:50], *TOKENS[300:305]], branch)
    assert desk.cache.used_cells == 65
    assert origin.tokens == TOKENS[:60]


def test_a_sequence_with_two_leases_is_left_alone_by_the_first_who_goes_on(desk: Desk):
    origin, _ = desk.turn(TOKENS[:50])
    desk.keep(origin)
    first, known = desk.turn(TOKENS[:60], origin)
    assert (first is origin, known) == (False, 50)
    assert origin.tokens == TOKENS[:50]
    second, known = desk.turn([*TOKENS[:50], 7], origin)
    assert (second is origin, known) == (True, 50)


def test_a_sequence_without_another_lease_goes_at_the_end_of_its_turn(desk: Desk):
    sequence = desk.open(TOKENS[:50], scope=None)
    desk.evaluate(sequence, TOKENS[:50])
    desk.end(sequence)
    desk.cache.check_integrity()
    assert desk.cache.used_cells == 0


def test_a_request_goes_on_although_its_conversation_was_forgotten(desk: Desk):
    sequence = desk.open(TOKENS[:50])
    desk.keep(sequence)
    desk.evaluate(sequence, TOKENS[:30])
    desk.forget(sequence)
    desk.is_right(TOKENS[:50], desk.evaluate(sequence, TOKENS[30:50]))
    desk.end(sequence)
    desk.cache.check_integrity()
    assert desk.cache.used_cells == 0


def test_a_lease_is_released_once_however_often_that_is_asked_for(desk: Desk):
    sequence, _ = desk.turn(TOKENS[:50])
    lease = desk.cache.keep(sequence)
    for _ in range(3):
        lease.release()
    desk.cache.check_integrity()
    assert desk.turn(TOKENS[:60], sequence) == (sequence, 50)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_lease_ends_with_its_block_also_by_an_error(desk: Desk, error: type[BaseException]):
    def fail() -> None:
        with desk.cache.open(TOKENS[:50], None, scope="") as lease:
            desk.evaluate(lease.sequence, TOKENS[:30])
            raise error

    with pytest.raises(error):
        fail()
    desk.cache.check_integrity()
    assert (desk.cache.used_cells, desk.cache.running) == (0, [])


# -------------------- room


def test_an_evicted_sequence_comes_back_from_host_memory(desk: Desk):
    sequence, _ = desk.turn(TOKENS[:50])
    assert desk.cache.evict()
    desk.cache.check_integrity()
    assert (desk.cache.used_cells, sequence.seq_id) == (0, None)
    assert desk.cache.host_bytes > 0
    assert desk.turn(TOKENS[:60], sequence) == (sequence, 50)
    assert desk.cache.host_bytes == 0


def test_there_is_nothing_to_evict_but_idle_sequences(desk: Desk):
    assert not desk.cache.evict()
    running = desk.open(TOKENS[:50])
    assert not desk.cache.evict()
    desk.end(running)
    assert not desk.cache.evict()


def test_room_is_made_by_evicting_what_was_used_least_lately(desk: Desk):
    oldest, _ = desk.turn(TOKENS[:200])
    newer, _ = desk.turn(TOKENS[500:700])
    assert desk.cache.make_room(300)
    desk.cache.check_integrity()
    assert (oldest.seq_id, newer.seq_id is None) == (None, False)


def test_room_that_running_sequences_take_is_not_made(desk: Desk):
    running = desk.open(TOKENS[:400])
    desk.evaluate(running, TOKENS[:400])
    assert desk.cache.make_room(112)
    assert not desk.cache.make_room(113)
    desk.cache.check_integrity()


def test_more_sequences_than_the_context_has_ids_take_turns(desk: Desk):
    sequences = [desk.turn(TOKENS[100 * i : 100 * i + 20])[0] for i in range(10)]
    assert sum(sequence.seq_id is not None for sequence in sequences) == 4
    for i, sequence in enumerate(sequences):
        assert desk.turn(TOKENS[100 * i : 100 * i + 21], sequence) == (sequence, 20)


def test_a_sequence_that_comes_back_is_not_dropped_to_keep_the_budget(llama: LlamaModel):
    """To give it an id, another one leaves the context, and takes the budget that it was in."""
    desk = Desk(llama, host_bytes_max=15_000)  # for one of them, not for two
    sequences = [desk.turn(TOKENS[100 * i : 100 * i + 20])[0] for i in range(5)]
    assert desk.turn(TOKENS[:21], sequences[0]) == (sequences[0], 20)
    desk.close()


def test_what_exceeds_the_budget_of_host_memory_is_dropped_and_evaluated_again(llama: LlamaModel):
    desk = Desk(llama, host_bytes_max=30_000)
    sequences = [desk.turn(TOKENS[100 * i : 100 * i + 40])[0] for i in range(3)]
    while desk.cache.evict():
        desk.cache.check_integrity()
    assert 0 < desk.cache.host_bytes <= 30_000
    assert [len(sequence.tokens) for sequence in sequences] == [0, 0, 40], "the last one that was used is kept"
    assert desk.turn(TOKENS[:50], sequences[0])[1] == 0
    assert desk.turn(TOKENS[200:250], sequences[2])[1] == 40
    desk.close()


def test_without_host_memory_whatever_leaves_the_context_is_dropped(llama: LlamaModel):
    desk = Desk(llama, host_bytes_max=0)
    sequence, _ = desk.turn(TOKENS[:40])
    assert desk.cache.evict()
    desk.cache.check_integrity()
    assert (sequence.tokens, desk.cache.host_bytes, desk.cache.used_cells) == ([], 0, 0)
    assert desk.turn(TOKENS[:50], sequence)[1] == 0
    desk.close()


def test_what_came_back_once_is_kept_longer_than_what_never_did(llama: LlamaModel):
    desk = Desk(llama, host_bytes_max=30_000)
    returning, _ = desk.turn(TOKENS[:20])
    desk.turn(TOKENS[:40], returning)
    one_off, _ = desk.turn(TOKENS[100:140])
    for _ in range(2):
        assert desk.cache.evict()
    assert (len(returning.tokens), len(one_off.tokens)) == (40, 0)
    desk.close()


def test_a_preempted_sequence_goes_on_later(desk: Desk):
    sequence = desk.open(TOKENS[:50])
    desk.keep(sequence)
    desk.evaluate(sequence, TOKENS[:30])
    desk.preempt(sequence)
    desk.cache.check_integrity()
    assert desk.cache.used_cells == 0
    assert desk.turn(TOKENS[:50], sequence) == (sequence, 30)


def test_a_preempted_sequence_that_nothing_else_keeps_goes(desk: Desk):
    sequence = desk.open(TOKENS[:50])
    desk.keep(sequence)
    desk.evaluate(sequence, TOKENS[:30])
    desk.forget(sequence)
    desk.preempt(sequence)
    desk.cache.check_integrity()
    assert (desk.cache.used_cells, desk.cache.host_bytes) == (0, 0)


def test_alone_a_short_sequence_leaves_the_cells_behind_a_long_one_that_has_gone(desk: Desk):
    desk.replace_context(2048)
    long, _ = desk.turn(TOKENS[:1000])
    short, _ = desk.turn(TOKENS[1500:1520])
    other, _ = desk.turn(TOKENS[1600:1700])
    desk.forget(long)
    desk.cache.compact(short)
    desk.cache.check_integrity()
    assert desk.turn(TOKENS[1500:1530], short) == (short, 20)
    assert desk.turn(TOKENS[1600:1701], other) == (other, 100)


# -------------------- another context


def test_everything_moves_into_a_larger_context(desk: Desk):
    ada, _ = desk.turn(TOKENS[:50])
    running = desk.open(TOKENS[300:400])
    desk.evaluate(running, TOKENS[300:350])
    desk.replace_context(1024)
    assert desk.cache.host_bytes == 0
    desk.is_right(TOKENS[300:400], desk.evaluate(running, TOKENS[350:400]))
    assert desk.turn(TOKENS[:60], ada) == (ada, 50)


def test_what_does_not_fit_into_a_smaller_context_waits_in_host_memory(desk: Desk):
    ada, bob = [desk.turn(TOKENS[300 * i : 300 * i + 200])[0] for i in range(2)]
    desk.replace_context(256)
    assert [ada.seq_id is None, bob.seq_id is None] == [True, False]
    assert desk.turn([*TOKENS[:200], 5], ada) == (ada, 200)


def test_a_closed_cache_knows_nothing_any_more(desk: Desk):
    sequence, _ = desk.turn(TOKENS[:50])
    swapped, _ = desk.turn(TOKENS[100:150])
    desk.cache.evict()
    desk.cache.close()
    desk.cache.check_integrity()
    assert (sequence.tokens, swapped.tokens) == ([], [])
    assert (desk.cache.host_bytes, desk.cache.used_cells, desk.cache.n_cells) == (0, 0, 0)
    desk.context.kv_cache_clear()
    desk.cache.attach(desk.context)
    assert desk.turn(TOKENS[:50], sequence)[1] == 0


@pytest.mark.parametrize("evicted", [False, True])
def test_a_saved_sequence_is_adopted_by_another_cache(llama: LlamaModel, desk: Desk, evicted: bool):
    sequence, _ = desk.turn(TOKENS[:50])
    if evicted:
        desk.cache.evict()
    tokens, state, _ = desk.cache.save(sequence)
    assert (tokens, state is None) == (TOKENS[:50], False)
    other = Desk(llama)
    adopted = other.adopt(tokens, state)
    other.cache.check_integrity()
    assert other.turn(TOKENS[:60], adopted) == (adopted, 50)
    other.close()


def test_an_adopted_state_that_is_not_valid_is_evaluated_again(desk: Desk):
    adopted = desk.adopt(TOKENS[:50], b"this is no state of any model")
    desk.cache.check_integrity()
    sequence, known = desk.turn(TOKENS[:60], adopted)
    assert (sequence.tokens, known) == (TOKENS[:60], 0)


def test_half_an_adopted_state_is_evaluated_again(desk: Desk):
    sequence, _ = desk.turn(TOKENS[:50])
    tokens, state, _ = desk.cache.save(sequence)
    desk.forget(sequence)
    for length in (1, 20, 1000, len(state or b"") - 1):
        adopted = desk.adopt(tokens, (state or b"")[:length])
        sequence, known = desk.turn(TOKENS[:60], adopted)
        assert known == 0
        desk.forget(sequence)
        desk.cache.check_integrity()


# -------------------- common prefixes


@given(st.lists(st.integers(0, 1), max_size=20), st.lists(st.integers(0, 1), max_size=20))
def test_the_common_prefix_ends_where_two_lists_begin_to_differ(a: list[int], b: list[int]):
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n in (len(a), len(b)) or a[n] != b[n]
