"""Which sequence holds which tokens: whatever is shared, moved, dropped or brought back, the next logits are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cyllama.engine.kv_cache import KVCache
from cyllama.engine.sequence import CachedSequence, Lease, common_prefix
from cyllama.llama.llama_cpp import (
    GGMLType,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaFlashAttnType,
    LlamaModel,
    LlamaState,
)
from cyllama.models import TINY_CHAT

from ..support.random_models import (
    ARCHITECTURES,
    HYBRID,
    REAL_SLIDING_WINDOW,
    RECURRENT,
    SLIDING_WINDOW,
    write_random_model,
)

SAME = 0.02  # the rounding of another batch is below, another history above
SAME_QUANTIZED = 0.5  # the embedded model's weights have 8 bits, and so has what they are multiplied with
PLENTY = 2**30
KINDS = ("tiny-chat", *ARCHITECTURES, "gemma3 with a window of 512", "lfm2 with a window of 16")
TOKENS = np.random.default_rng(7).integers(10, 1270, 2000).tolist()

NewContext = Callable[..., LlamaContext]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LlamaModel]]:
    folder: Path = tmp_path_factory.mktemp("models")
    models = {name: LlamaModel(write_random_model(folder / name, name)) for name in ARCHITECTURES}
    for kind, window in (("gemma3", REAL_SLIDING_WINDOW), ("lfm2", SLIDING_WINDOW)):
        path = write_random_model(folder / f"{kind} with a window", kind, sliding_window=window)
        models[f"{kind} with a window of {window}"] = LlamaModel(path)
    models["tiny-chat"] = LlamaModel(TINY_CHAT)
    yield models
    for model in models.values():
        model.close()


@pytest.fixture
def llama(models: dict[str, LlamaModel]) -> LlamaModel:
    """Of the embedded model's kind, without its quantized weights, which make every place round differently."""
    return models["llama"]


def new_context(model: LlamaModel, n_ctx: int = 512, **fields: Any) -> LlamaContext:
    params = LlamaContextParams()
    params.n_ctx, params.n_seq_max, params.n_batch, params.n_outputs_max = n_ctx, 4, 512, 4
    params.n_threads = params.n_threads_batch = 1
    params.kv_unified, params.swa_full = True, False
    params.flash_attn_type = LlamaFlashAttnType.DISABLED  # it rounds differently for other batches
    params.type_k = params.type_v = GGMLType.F32
    for name, value in fields.items():
        setattr(params, name, value)
    return LlamaContext(model, params)


class Desk:
    """A KV cache with a real context, and another context that knows nothing, to compare with."""

    def __init__(self, model: LlamaModel, host_bytes_max: int = PLENTY, n_ctx: int = 512, **fields: Any) -> None:
        self.model = model
        self.fields = fields
        self.context = new_context(model, n_ctx, **fields)
        self.cache = KVCache(model, host_bytes_max, idle_cells_max=512)
        self.cache.attach(self.context)
        self.reference = new_context(model, 1024)
        self.same = SAME_QUANTIZED if model.ftype == "Q8_0" else SAME
        self.leases: list[Lease] = []

    def close(self) -> None:
        self.context.close()
        self.reference.close()

    def open(self, tokens: Sequence[int], own: CachedSequence | None = None, *, shareable: bool = True):
        lease = self.cache.open(tokens, own, shareable=shareable)
        self.leases.append(lease)
        sequence = lease.sequence
        self.cache.check_integrity()
        assert sequence.running
        assert sequence.tokens == list(tokens[: len(sequence.tokens)]), "it holds a prefix, and nothing else"
        assert len(sequence.tokens) < len(tokens), "something is left to evaluate"
        return sequence

    def keep(self, sequence: CachedSequence) -> None:
        """Do what a conversation does that goes on from a sequence."""
        self.leases.append(self.cache.keep(sequence))

    def branch(self, sequence: CachedSequence) -> CachedSequence:
        """Return a copy, which is kept."""
        self.leases.append(self.cache.branch(sequence, shareable=True))
        return self.leases[-1].sequence

    def adopt(self, tokens: Sequence[int], state: bytes | None) -> CachedSequence:
        """Return a sequence that was saved, which is kept."""
        self.leases.append(self.cache.adopt(tokens, state or b""))
        return self.leases[-1].sequence

    def forget(self, sequence: CachedSequence) -> None:
        """Do what a conversation does that is forgotten: release one of the leases that keep a sequence."""
        self._pop(sequence, extends=False).release()

    def end(self, sequence: CachedSequence) -> None:
        """Do what a request does that ends: release the lease that extends a sequence."""
        self._pop(sequence, extends=True).release()

    def preempt(self, sequence: CachedSequence) -> None:
        """Do what a request of a conversation does that has to wait again: the conversation keeps the sequence."""
        lease = self._pop(sequence, extends=True)
        self.cache.preempt(lease)
        lease.release()

    def _pop(self, sequence: CachedSequence, *, extends: bool) -> Lease:
        lease = next(lease for lease in self.leases if lease.sequence is sequence and lease.extends == extends)
        self.leases.remove(lease)
        return lease

    def evaluate(self, sequence: CachedSequence, tokens: Sequence[int]) -> np.ndarray:
        """Evaluate what comes next of a sequence, and return the last logits."""
        for start in range(0, len(tokens), self.context.n_ubatch):
            chunk = tokens[start : start + self.context.n_ubatch]
            assert self.cache.make_room(len(chunk))
            assert decode(self.context, sequence, chunk) == 0
            self.cache.append(sequence, chunk)
            self.cache.check_integrity()
        return np.asarray(self.context.get_logits_ith())

    def turn(self, tokens: Sequence[int], own: CachedSequence | None = None, *, shareable: bool = True):
        """Do what a request of a conversation does; return the sequence, and how many tokens were known."""
        sequence = self.open(tokens, own, shareable=shareable)
        if sequence is not own:
            self.keep(sequence)
            if own is not None:
                self.forget(own)
        known = len(sequence.tokens)
        if not self.cache.drops_tails and known < len(tokens) - 1:
            self.evaluate(sequence, tokens[known:-1])
            self.cache.take_checkpoint(sequence)
        logits = self.evaluate(sequence, tokens[len(sequence.tokens) :])
        self.is_right(tokens, logits)
        self.end(sequence)
        self.cache.check_integrity()
        return sequence, known

    def is_right(self, tokens: Sequence[int], logits: np.ndarray) -> None:
        """Compare with logits from a context that has seen these tokens only."""
        self.reference.kv_cache_clear(clear_data=False)
        batch = LlamaBatch(512)
        for start in range(0, len(tokens), 512):
            batch.clear()
            batch.add_sequence(tokens[start : start + 512], start)
            assert self.reference.decode(batch) == 0
        assert np.abs(np.asarray(self.reference.get_logits_ith()) - logits).max() < self.same

    def replace_context(self, n_ctx: int) -> None:
        self.cache.detach()
        self.cache.check_integrity()
        self.context.close()
        self.context = new_context(self.model, n_ctx, **self.fields)
        self.cache.attach(self.context)
        self.cache.check_integrity()


def decode(context: LlamaContext, sequence: CachedSequence, tokens: Sequence[int]) -> int:
    assert sequence.seq_id is not None
    batch = LlamaBatch(len(tokens))
    batch.add_sequence(tokens, len(sequence.tokens), sequence.seq_id)
    return context.decode(batch)


@pytest.fixture
def desk(llama: LlamaModel) -> Iterator[Desk]:
    desk = Desk(llama)
    yield desk
    desk.close()


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
    assert desk.turn(TOKENS[:50], shareable=False)[1] == 0
    desk.turn(TOKENS[200:250], shareable=False)
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
    sequence = desk.open(TOKENS[:50], shareable=False)
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
        with desk.cache.open(TOKENS[:50], None, shareable=True) as lease:
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


def test_an_adopted_state_that_is_none_is_evaluated_again(desk: Desk):
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


# -------------------- aborts


@pytest.mark.parametrize("name", ["tiny-chat", "gemma3", "mamba", "jamba"])
def test_after_an_abort_the_recorded_tokens_are_right_and_the_conversation_goes_on(
    models: dict[str, LlamaModel], name: str
):
    desk = Desk(models[name])
    other, _ = desk.turn(TOKENS[700:720])
    sequence, _ = desk.turn(TOKENS[:50])
    assert desk.open(TOKENS[:80], sequence) is sequence
    desk.context.abort()
    assert decode(desk.context, sequence, TOKENS[50:80]) == 2
    desk.cache.resync_after_abort(sequence, TOKENS[50:80])
    desk.context.clear_abort()
    desk.end(sequence)
    desk.cache.check_integrity()
    desk.turn(TOKENS[:90], sequence)
    assert desk.turn(TOKENS[700:725], other) == (other, 20)
    desk.close()


# -------------------- memories that cannot drop a tail


@pytest.mark.parametrize("name", [*RECURRENT, *HYBRID])
def test_a_state_goes_back_to_the_end_of_the_last_prompt(models: dict[str, LlamaModel], name: str):
    desk = Desk(models[name])
    sequence, _ = desk.turn(TOKENS[:50])
    assert desk.open([*TOKENS[:50], 5, 6, 7, 8], sequence) is sequence
    desk.evaluate(sequence, [5, 6, 7])
    desk.end(sequence)
    assert desk.turn([*TOKENS[:50], 5, 6, 9], sequence) == (sequence, 49)
    assert desk.turn([*TOKENS[:20], 9], sequence)[1] == 0
    desk.close()


@pytest.mark.parametrize("name", ["gemma3", *RECURRENT, *HYBRID])
def test_a_checkpoint_survives_host_memory_and_a_branch(models: dict[str, LlamaModel], name: str):
    desk = Desk(models[name])
    sequence, _ = desk.turn(TOKENS[:100])
    desk.cache.evict()
    branch, known = desk.turn([*TOKENS[:99], 7, 8, 9])
    assert known == 99
    assert branch is not sequence
    assert desk.turn([*TOKENS[:99], 5, 6], sequence) == (sequence, 99)
    desk.close()


def test_a_branch_does_not_keep_its_origin_from_using_the_cells_that_left_the_window(models: dict[str, LlamaModel]):
    desk = Desk(models["gemma3"], n_ctx=2048, n_ubatch=64)  # 256 cells for windows
    origin, _ = desk.turn(TOKENS[:220])
    branch = desk.branch(origin)
    assert desk.turn(TOKENS[:600], origin) == (origin, 220)
    assert desk.turn([*TOKENS[:220], *TOKENS[700:800]], branch) == (branch, 220)
    desk.close()


def test_a_window_is_shared_while_it_is_still_there(models: dict[str, LlamaModel]):
    desk = Desk(models["gemma3"])
    ada, _ = desk.turn(TOKENS[:100])
    bob, known = desk.turn([*TOKENS[:60], *TOKENS[300:330]])
    assert known == 60
    assert bob is not ada
    assert desk.turn([*TOKENS[:100], 5], ada) == (ada, 100)
    desk.turn([*TOKENS[:30], *TOKENS[400:450]], bob)
    desk.close()


# -------------------- what fails, or is not what it should be


def fail_to_copy(monkeypatch: pytest.MonkeyPatch, error: type[Exception], n: int = 1) -> list[int]:
    """Let the next ``n`` copies of a state fail, and return the ids of the sequences that were to be copied."""
    failed: list[int] = []
    copy = LlamaContext.state_seq_copy

    def fail(self: LlamaContext, seq_id: int, flags: int = 0) -> LlamaState:
        if len(failed) == n:
            return copy(self, seq_id, flags)
        failed.append(seq_id)
        raise error("no copy")

    monkeypatch.setattr(LlamaContext, "state_seq_copy", fail)
    return failed


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
@pytest.mark.parametrize("n", [1, 2, 100])
def test_a_copy_that_fails_leaves_nothing_behind_and_is_evaluated(
    models: dict[str, LlamaModel], monkeypatch: pytest.MonkeyPatch, error: type[Exception], n: int
):
    desk = Desk(models["gemma3"], n_ctx=2048, n_ubatch=64)  # a window that is copied
    other, _ = desk.turn(TOKENS[700:900])
    idle, _ = desk.turn(TOKENS[1000:1100])
    origin, _ = desk.turn(TOKENS[:220])
    failed = fail_to_copy(monkeypatch, error, n)
    branch = desk.branch(origin)
    monkeypatch.undo()
    desk.cache.check_integrity()
    assert failed
    assert len(branch.tokens) == (0 if n == 100 else 220), "it is tried again after each eviction"
    desk.turn([*TOKENS[:220], 7], branch)
    assert desk.turn([*TOKENS[:220], 8], origin) == (origin, 220)
    desk.turn(TOKENS[700:910], other)
    desk.turn(TOKENS[1000:1110], idle)
    desk.close()


@pytest.mark.parametrize(
    "name", ["gemma3 with a window of 512", "gemma3", "jamba", "mamba", "lfm2 with a window of 16"]
)
def test_a_checkpoint_that_cannot_be_restored_is_evaluated(
    models: dict[str, LlamaModel], name: str, monkeypatch: pytest.MonkeyPatch
):
    desk = Desk(models[name], n_ctx=1024)
    sequence, _ = desk.turn(TOKENS[:600])
    desk.evaluate(desk.open([*TOKENS[:600], *TOKENS[900:940]], sequence), TOKENS[900:940])
    desk.end(sequence)

    def fail(self: LlamaContext, data: object, seq_id: int, flags: int = 0) -> None:
        self.seq_rm(seq_id)  # as llama.cpp does
        raise RuntimeError("no room")

    monkeypatch.setattr(LlamaContext, "state_seq_set_data", fail)
    going_back, known = desk.turn([*TOKENS[:599], 7, 8, 9], sequence)
    monkeypatch.undo()
    assert known in (0, 599), "windows may not need it"
    desk.turn([*TOKENS[:599], 7, 8, 9, 10], going_back)
    desk.close()


def test_restored_windows_count_as_cells_of_their_own(models: dict[str, LlamaModel]):
    desk = Desk(models["gemma3 with a window of 512"], n_ctx=1024)
    origin, _ = desk.turn(TOKENS[:400])
    copies = [desk.branch(origin) for _ in range(2)]
    assert desk.cache.used_cells == 400, "they share everything"
    desk.evaluate(desk.open([*TOKENS[:400], *TOKENS[900:910]], origin), TOKENS[900:910])
    for copy in copies:
        copy.n_pins += 1
    restored = [desk.cache._restore_checkpoint(copy, 399) for copy in copies]
    assert restored == [True, False], "there is room for one"
    assert desk.cache.used_cells == 410 + 399
    desk.close()


@pytest.mark.parametrize("name", KINDS)
def test_a_sequence_that_llama_cpp_holds_otherwise_is_noticed_and_evaluated_again(
    models: dict[str, LlamaModel], name: str
):
    desk = Desk(models[name])
    other, _ = desk.turn(TOKENS[700:720])
    sequence, _ = desk.turn(TOKENS[:50])
    assert sequence.seq_id is not None
    if models[name].is_recurrent or models[name].is_hybrid:
        desk.context.seq_rm(sequence.seq_id)
    else:
        desk.context.seq_rm(sequence.seq_id, 0, 45)
    with pytest.raises(AssertionError, match="50 tokens"):
        desk.cache.check_integrity()
    tokens, state, _ = desk.cache.save(sequence)
    assert (tokens, state) == (TOKENS[:50], None), "such a state is not saved"
    sequence, known = desk.turn(TOKENS[:60], sequence)
    assert known == 0
    desk.turn(TOKENS[700:730], other)
    desk.close()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("n", [40, 60])
def test_a_state_of_fewer_or_more_tokens_than_it_was_said_to_have_is_evaluated_again(
    models: dict[str, LlamaModel], name: str, n: int
):
    desk = Desk(models[name])
    sequence, _ = desk.turn(TOKENS[:50])
    _, state, _ = desk.cache.save(sequence)
    desk.forget(sequence)
    adopted = desk.adopt(TOKENS[:n], state)
    desk.cache.check_integrity()
    assert desk.turn(TOKENS[:70], adopted)[1] == 0
    desk.close()


def test_what_no_request_extends_any_more_is_noticed(desk: Desk):
    sequence, _ = desk.turn(TOKENS[:50])
    sequence.planned = [60]
    with pytest.raises(AssertionError, match="a checkpoint is planned"):
        desk.cache.check_integrity()
    sequence.planned = []
    leases, sequence.leases = sequence.leases, set()
    with pytest.raises(AssertionError, match="without a lease"):
        desk.cache.check_integrity()
    sequence.leases = leases
    desk.cache.evict()
    state, sequence.state = sequence.state, None
    with pytest.raises(AssertionError, match="50 tokens have neither cells nor a state"):
        desk.cache.check_integrity()
    sequence.state = state
    desk.cache.check_integrity()


# -------------------- anything at all


class Talk:
    """A conversation as the engine has it, and its turn if it has one."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.sequence: CachedSequence | None = None
        self.prompt: list[int] | None = None
        self.answer: list[int] = []
        self.running = False
        self.forgotten = False


class Walk:
    """Conversations that are begun, continued, forked, interrupted and forgotten in any order."""

    ANSWER, CHUNK, MOST_RUNNING, LONGEST = 3, 16, 2, 120

    def __init__(self, desk: Desk) -> None:
        self.desk, self.cache = desk, desk.cache
        self.talks: list[Talk] = []
        self.n_known = 0

    def do(self, what: str, which: int, how: int) -> None:
        if what == "begin":
            self.begin(which, how)
        elif what == "evict":
            self.cache.evict()
        elif what == "compact" and not any(talk.running for talk in self.talks):
            self.cache.compact(self.talks[which % len(self.talks)].sequence if self.talks and how % 3 else None)
        elif what == "replace":
            n_ctx = (256, 512, 768)[how % 3]
            used = sum(len(talk.sequence.tokens) for talk in self.talks if talk.running and talk.sequence)
            if used + 2 * self.CHUNK <= n_ctx:
                self.desk.replace_context(n_ctx)
        elif self.talks and what != "compact":
            getattr(self, what)(self.talks[which % len(self.talks)], how)
        self.cache.check_integrity()

    def begin(self, which: int, how: int) -> None:
        """Begin a conversation, perhaps like another one begins."""
        talk, start = Talk(), 61 * which % 1900
        known = self.talks[which % len(self.talks)].tokens if self.talks and how % 3 else []
        self.talks.append(talk)
        self.go_on(talk, how, [*known[: how * 7 % 100], *TOKENS[start : start + 1 + how % 70]])

    def go_on(self, talk: Talk, how: int, prompt: list[int] | None = None) -> None:
        """Start a turn: with what follows, from an earlier point, or once more."""
        if talk.prompt is not None or sum(other.prompt is not None for other in self.talks) >= self.MOST_RUNNING:
            return
        if prompt is None:
            tokens = talk.tokens
            keep = len(tokens) if how % 4 and len(tokens) < self.LONGEST else len(tokens) * (how % 10) // 10
            prompt = [*tokens[:keep], *TOKENS[how * 13 : how * 13 + how % 5 * 4]] or TOKENS[:3]
        talk.prompt, talk.answer = prompt, []
        self.step(talk)

    def step(self, talk: Talk, how: int = 0, *, abort: bool = False) -> None:
        """Do what the engine does for a request in one step, and compare what comes out."""
        if talk.prompt is None:
            return
        everything = talk.prompt + talk.answer
        if not talk.running:
            self.open(talk, everything)
            return
        sequence = talk.sequence
        assert sequence is not None
        n = min(len(everything) - len(sequence.tokens), self.CHUNK)
        before_last = len(talk.prompt) - 1 - len(sequence.tokens)
        if not self.cache.drops_tails and before_last > 0:
            n = min(n, before_last)
        tokens = everything[len(sequence.tokens) : len(sequence.tokens) + n]
        if not self.cache.make_room(n):
            self.end(talk, sequence)
            return
        if abort:
            self.abort(sequence, tokens)
            return
        assert decode(self.desk.context, sequence, tokens) == 0
        self.cache.append(sequence, tokens)
        if not self.cache.drops_tails and len(sequence.tokens) == len(talk.prompt) - 1:
            self.cache.take_checkpoint(sequence)
        if len(sequence.tokens) == len(everything):
            logits = np.asarray(self.desk.context.get_logits_ith())
            self.desk.is_right(everything, logits)
            talk.answer.append(int(logits.argmax()))
            if len(talk.answer) == self.ANSWER:
                self.end(talk, sequence)

    def open(self, talk: Talk, everything: list[int]) -> None:
        own = talk.sequence
        sequence = self.desk.open(everything, own)
        assert sequence.tokens == everything[: len(sequence.tokens)]
        assert len(sequence.tokens) < len(everything)
        self.n_known += len(sequence.tokens)
        if sequence is not own and not talk.forgotten:
            self.desk.keep(sequence)
            if own is not None:
                self.desk.forget(own)
        talk.sequence, talk.running = sequence, True

    def end(self, talk: Talk, sequence: CachedSequence) -> None:
        assert talk.prompt is not None
        talk.tokens, talk.prompt, talk.running = talk.prompt + talk.answer, None, False
        self.desk.end(sequence)
        if talk.forgotten:
            self.talks.remove(talk)

    def abort(self, sequence: CachedSequence, tokens: list[int]) -> None:
        self.desk.context.abort()
        assert decode(self.desk.context, sequence, tokens) == 2
        self.cache.resync_after_abort(sequence, tokens)
        self.desk.context.clear_abort()

    def interrupt(self, talk: Talk, how: int) -> None:
        self.step(talk, abort=True)

    def finish(self, talk: Talk, how: int) -> None:
        while talk.prompt is not None:
            self.step(talk)
            self.cache.check_integrity()

    def preempt(self, talk: Talk, how: int) -> None:
        if talk.running and talk.sequence is not None:
            self.desk.preempt(talk.sequence)
            talk.running = False
            if talk.forgotten:
                talk.sequence = None

    def fork(self, talk: Talk, how: int) -> None:
        if talk.sequence is not None and not talk.forgotten:
            other = Talk()
            other.tokens, other.sequence = talk.tokens, talk.sequence
            self.desk.keep(talk.sequence)
            self.talks.append(other)

    def save(self, talk: Talk, how: int) -> None:
        if talk.sequence is not None and not talk.forgotten:
            tokens, state, _ = self.cache.save(talk.sequence)
            if state is not None:
                other = Talk()
                other.tokens, other.sequence = talk.tokens, self.desk.adopt(tokens, state)
                self.talks.append(other)

    def forget(self, talk: Talk, how: int) -> None:
        if talk.forgotten or (talk.prompt is not None and not talk.running):
            return
        if talk.sequence is not None:
            self.desk.forget(talk.sequence)
        talk.forgotten = True
        if not talk.running:
            self.talks.remove(talk)


WHAT = (
    "begin",
    "go_on",
    "step",
    "finish",
    "fork",
    "save",
    "forget",
    "evict",
    "replace",
    "preempt",
    "interrupt",
    "compact",
)
WALK = st.lists(
    st.tuples(st.sampled_from((*WHAT, "finish", "go_on")), st.integers(0, 99), st.integers(0, 99)),
    min_size=10,
    max_size=60,
)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=WALK, host_bytes_max=st.sampled_from([0, 50_000, PLENTY]))
def test_the_logits_are_right_whatever_was_done_before(
    models: dict[str, LlamaModel], name: str, steps: list[tuple[str, int, int]], host_bytes_max: int
):
    do_all(Desk(models[name], host_bytes_max, n_ctx=256), steps)


@pytest.mark.parametrize("name", ["gemma3", "lfm2 with a window of 16"])
@settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=WALK, host_bytes_max=st.sampled_from([0, 50_000, PLENTY]))
def test_the_logits_are_right_where_windows_have_fewer_cells_than_sequences(
    models: dict[str, LlamaModel], name: str, steps: list[tuple[str, int, int]], host_bytes_max: int
):
    do_all(Desk(models[name], host_bytes_max, n_ctx=1024, n_ubatch=16), steps)


def do_all(desk: Desk, steps: list[tuple[str, int, int]]) -> None:
    """Do these steps, and then come to an end, after which there is nothing left."""
    walk = Walk(desk)
    try:
        for step in steps:
            walk.do(*step)
        for talk in list(walk.talks):
            walk.finish(talk, 0)
        for talk in list(walk.talks):
            walk.forget(talk, 0)
        desk.cache.check_integrity()
        assert (desk.cache.used_cells, desk.cache.host_bytes) == (0, 0)
    finally:
        desk.close()


@given(st.lists(st.integers(0, 1), max_size=20), st.lists(st.integers(0, 1), max_size=20))
def test_the_common_prefix_ends_where_two_lists_begin_to_differ(a: list[int], b: list[int]):
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n in (len(a), len(b)) or a[n] != b[n]
