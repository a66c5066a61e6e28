"""Conversations that do anything in any order: the next logits are right, and nothing is left at the end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.engine.sequence import CachedSequence
from cyllama.llama.llama_cpp import LlamaModel

from ..support.kv_desk import KINDS, PLENTY, TOKENS, Desk, decode


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
@settings(max_examples=20)
@given(steps=WALK, host_bytes_max=st.sampled_from([0, 50_000, PLENTY]))
def test_the_logits_are_right_whatever_was_done_before(
    kv_models: dict[str, LlamaModel], name: str, steps: list[tuple[str, int, int]], host_bytes_max: int
):
    do_all(Desk(kv_models[name], host_bytes_max, n_ctx=256), steps)


@pytest.mark.parametrize("name", ["gemma3", "lfm2 with a window of 16"])
@settings(max_examples=20)
@given(steps=WALK, host_bytes_max=st.sampled_from([0, 50_000, PLENTY]))
def test_the_logits_are_right_where_windows_have_fewer_cells_than_sequences(
    kv_models: dict[str, LlamaModel], name: str, steps: list[tuple[str, int, int]], host_bytes_max: int
):
    do_all(Desk(kv_models[name], host_bytes_max, n_ctx=1024, n_ubatch=16), steps)


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
