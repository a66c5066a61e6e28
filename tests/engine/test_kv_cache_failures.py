"""Aborted decodes, memories that cannot drop a tail, and states that are not what they should be: all are noticed."""

from __future__ import annotations

import pytest

from cyllama.llama.llama_cpp import LlamaContext, LlamaModel, LlamaState

from ..support.kv_desk import KINDS, TOKENS, Desk, decode
from ..support.random_models import HYBRID, RECURRENT

# -------------------- aborts


@pytest.mark.parametrize("name", ["tiny-chat", "gemma3", "mamba", "jamba"])
def test_after_an_abort_the_recorded_tokens_are_right_and_the_conversation_goes_on(
    kv_models: dict[str, LlamaModel], name: str
):
    desk = Desk(kv_models[name])
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
def test_a_state_goes_back_to_the_end_of_the_last_prompt(kv_models: dict[str, LlamaModel], name: str):
    desk = Desk(kv_models[name])
    sequence, _ = desk.turn(TOKENS[:50])
    assert desk.open([*TOKENS[:50], 5, 6, 7, 8], sequence) is sequence
    desk.evaluate(sequence, [5, 6, 7])
    desk.end(sequence)
    assert desk.turn([*TOKENS[:50], 5, 6, 9], sequence) == (sequence, 49)
    assert desk.turn([*TOKENS[:20], 9], sequence)[1] == 0
    desk.close()


@pytest.mark.parametrize("name", ["gemma3", *RECURRENT, *HYBRID])
def test_a_checkpoint_survives_host_memory_and_a_branch(kv_models: dict[str, LlamaModel], name: str):
    desk = Desk(kv_models[name])
    sequence, _ = desk.turn(TOKENS[:100])
    desk.cache.evict()
    branch, known = desk.turn([*TOKENS[:99], 7, 8, 9])
    assert known == 99
    assert branch is not sequence
    assert desk.turn([*TOKENS[:99], 5, 6], sequence) == (sequence, 99)
    desk.close()


def test_a_branch_does_not_keep_its_origin_from_using_the_cells_that_left_the_window(kv_models: dict[str, LlamaModel]):
    desk = Desk(kv_models["gemma3"], n_ctx=2048, n_ubatch=64)  # 256 cells for windows
    origin, _ = desk.turn(TOKENS[:220])
    branch = desk.branch(origin)
    assert desk.turn(TOKENS[:600], origin) == (origin, 220)
    assert desk.turn([*TOKENS[:220], *TOKENS[700:800]], branch) == (branch, 220)
    desk.close()


def test_a_window_is_shared_while_it_is_still_there(kv_models: dict[str, LlamaModel]):
    desk = Desk(kv_models["gemma3"])
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
    kv_models: dict[str, LlamaModel], monkeypatch: pytest.MonkeyPatch, error: type[Exception], n: int
):
    desk = Desk(kv_models["gemma3"], n_ctx=2048, n_ubatch=64)  # a window that is copied
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
    kv_models: dict[str, LlamaModel], name: str, monkeypatch: pytest.MonkeyPatch
):
    desk = Desk(kv_models[name], n_ctx=1024)
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


def test_restored_windows_count_as_cells_of_their_own(kv_models: dict[str, LlamaModel]):
    desk = Desk(kv_models["gemma3 with a window of 512"], n_ctx=1024)
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
    kv_models: dict[str, LlamaModel], name: str
):
    desk = Desk(kv_models[name])
    other, _ = desk.turn(TOKENS[700:720])
    sequence, _ = desk.turn(TOKENS[:50])
    assert sequence.seq_id is not None
    if kv_models[name].is_recurrent or kv_models[name].is_hybrid:
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
    kv_models: dict[str, LlamaModel], name: str, n: int
):
    desk = Desk(kv_models[name])
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
