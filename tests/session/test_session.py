"""Conversations that stay warm: what they hold, what they evaluate, and what becomes of them."""

from __future__ import annotations

import asyncio
import copy
import gc
import itertools
import os
import pickle
import random
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cyllama import LLM, ConfigError, ContextSizeError, DecodeError, PromptError
from cyllama import session_file as session_file_module
from cyllama.engine import Engine
from cyllama.engine.tuning import MIN_SHARED
from cyllama.errors import ConfigTypeError, PromptTypeError, SessionError, SessionFileError
from cyllama.llama.llama_cpp import GGMLType, LlamaBatch, LlamaContext, LlamaContextParams, LlamaFlashAttnType
from cyllama.models import TINY_CHAT
from cyllama.session import Session

from ..support.harness import engine_of, in_threads
from ..support.harness import held as the_engine_waiting
from ..support.random_models import HYBRID, RECURRENT, write_random_model

END = "<|im_end|>\n"


def user(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


SYSTEM = "<|im_start|>system\n" + "You are a helpful assistant. Always answer in one short sentence. " * 12 + END
CAPITAL, STORY = user("What is the capital of France?"), user("Tell me a story about a fox.")
IDS = np.random.default_rng(3).integers(10, 1270, 3000).tolist()


@pytest.fixture
def llm(llm: LLM) -> Iterator[LLM]:
    """The embedded model, without a context and without sessions."""
    llm.reset_context()
    yield llm
    llm.reset_context()


@contextmanager
def counting(llm: LLM) -> Iterator[SimpleNamespace]:
    """Count what is done inside the block, and check afterwards what is recorded."""
    counts, before = SimpleNamespace(), llm.stats
    yield counts
    after = llm.stats
    counts.evaluated = after.prompt_tokens_evaluated - before.prompt_tokens_evaluated
    counts.reused = after.prompt_tokens_reused - before.prompt_tokens_reused
    counts.contexts = after.contexts_created - before.contexts_created
    check_books(llm)


def check_books(llm: LLM) -> None:
    if llm._runtime.engine is not None:
        llm._runtime.engine.check_integrity()


def tokens_of(session: Session) -> list[int]:
    conversation = session.llm._runtime.conversations.find(session.name)
    return [] if conversation is None else list(conversation.tokens)


def swap_out(llm: LLM) -> None:
    """Let every session leave the context for which there is host memory, as where others need its cells."""
    engine = engine_of(llm)

    with engine.paused():
        while engine._kv_cache.move_away():
            pass


def crowd_out(llm: LLM) -> None:
    """Take every cell of a context of a fixed size, so that every session has to leave it."""
    llm(IDS[: llm.stats.n_ctx - 1], max_tokens=1)
    assert llm.stats.resident == 0


def regret(llm: LLM, tokens: list[int], n_prompt: int) -> float:
    """By how much, at most, a greedy answer missed the best logit of a context that knows nothing else."""
    params = LlamaContextParams()
    params.n_ctx = params.n_batch = params.n_outputs_max = len(tokens)
    params.n_threads = params.n_threads_batch = 1
    params.kv_unified = True
    params.flash_attn_type = LlamaFlashAttnType.DISABLED
    params.type_k = params.type_v = GGMLType.F32
    batch, worst = LlamaBatch(len(tokens)), 0.0
    for i, token in enumerate(tokens[:-1]):
        batch.add(token, i, [0], i >= n_prompt - 1)
    with LlamaContext(llm.model, params) as context:
        assert context.decode(batch) == 0
        for i in range(n_prompt - 1, len(tokens) - 1):
            logits = np.array(context.get_logits_ith(i))
            logits[[token for token in llm.model.vocab.eog_tokens() if token != tokens[i + 1]]] = -np.inf  # ignore_eos
            worst = max(worst, float(logits.max() - logits[tokens[i + 1]]))
    return worst


NEARLY_TIED = 0.3  # the rounding of other batches, with weights of 8 bits
EXACT = {"flash_attn": "disabled", "type_k": "f32", "type_v": "f32", "n_threads": 1, "temperature": 0}


# -------------------- turns


def test_a_session_remembers_what_was_said(llm: LLM):
    ada = llm.session("ada")
    assert "Ada" in ada(user("My name is Ada."))
    assert ada("\n" + user("What is my name?")) == "Your name is Ada."


def test_the_next_turn_evaluates_only_what_is_new(llm: LLM):
    ada = llm.session()
    first = ada(CAPITAL)
    assert first.usage.cached_tokens == 0
    held = ada.tokens
    assert held == first.usage.total_tokens
    rest = "\n" + user("What is the capital of Italy?")
    with counting(llm) as turn:
        second = ada(rest)
    n_rest = len(llm.tokenize(rest))
    assert second.usage.prompt_tokens == held + n_rest
    assert second.usage.cached_tokens == held - 1, "the last token of an answer is not evaluated before the next turn"
    assert (turn.evaluated, turn.reused) == (n_rest + 1, held - 1)


def test_appending_and_the_whole_history_are_the_same_conversation(llm: LLM):
    ada, bob = llm.session("ada"), llm.session("bob")
    rest = "\n" + user("What is the capital of Italy?")
    answers = [ada(CAPITAL), ada(rest)]
    history = CAPITAL
    first = llm(history, session="bob")
    assert first == answers[0]
    history += first + END.rstrip() + rest
    with counting(llm) as turn:
        second = llm(history, session="bob")
    assert second == answers[1]
    assert second.usage.cached_tokens > first.usage.prompt_tokens
    assert turn.evaluated == second.usage.prompt_tokens - second.usage.cached_tokens
    assert tokens_of(ada) == tokens_of(bob)


def test_a_whole_history_never_appends(llm: LLM):
    ada = llm.session("ada")
    llm(CAPITAL, session="ada")
    response = llm(CAPITAL, session="ada")
    assert response == "The capital of France is Paris."
    assert response.usage.prompt_tokens == llm.count_tokens(CAPITAL)
    assert ada.tokens == response.usage.total_tokens


def test_a_session_begins_with_one_bos_token_and_has_no_other(llm: LLM):
    bos = llm.model.vocab.bos
    ada = llm.session()
    ada(CAPITAL, add_bos=True)
    ada("\n" + CAPITAL, add_bos=True)
    assert tokens_of(ada)[0] == bos
    assert tokens_of(ada).count(bos) == 1


def test_a_session_takes_token_ids(llm: LLM):
    ada = llm.session()
    ids = llm.tokenize(CAPITAL)
    assert ada(ids[:5], max_tokens=0) == ""
    assert ada(ids[5:]) == "The capital of France is Paris."
    assert tokens_of(ada)[: len(ids)] == ids


def test_an_empty_text_continues_the_answer(llm: LLM):
    ada, whole = llm.session(), llm(STORY, max_tokens=20)
    first = ada(STORY, max_tokens=10)
    assert first + ada("", max_tokens=10) == whole


def test_a_session_cannot_begin_with_nothing(llm: LLM):
    ada = llm.session()
    with pytest.raises(PromptError, match="empty"):
        ada("")
    assert ada.tokens == 0
    assert ada(CAPITAL) == "The capital of France is Paris."


def test_max_tokens_zero_evaluates_for_later(llm: LLM):
    ada = llm.session()
    ada(SYSTEM, max_tokens=0)
    with counting(llm) as turn:
        ada(CAPITAL)
    assert turn.evaluated == llm.count_tokens(CAPITAL)


def test_calls_on_one_session_queue_up_in_order(llm: LLM):
    ada = llm.session()
    streams = [ada(user(f"My name is {name}."), stream=True) for name in ("Ada", "Bob", "Zoe")]
    answers = [stream.read() for stream in reversed(streams)][::-1]
    lengths = [answer.usage.prompt_tokens for answer in answers]
    assert lengths == sorted(lengths)
    for earlier, later in itertools.pairwise(answers):
        assert later.usage.prompt_tokens > earlier.usage.total_tokens
    assert ada.tokens == answers[-1].usage.total_tokens


def test_a_turn_that_fails_lets_those_behind_it_have_theirs(llm: LLM):
    ada = llm.session()
    with ada(CAPITAL, stream=True) as first:
        next(first)
        too_long, last = ada(IDS[:500], stream=True, n_ctx=300), ada("\n" + CAPITAL, stream=True)
        with pytest.raises(ContextSizeError):
            too_long.read()
        assert last.read() == "The capital of France is Paris."


def test_sessions_work_from_an_event_loop(llm: LLM):
    async def talk() -> list[str]:
        ada = llm.session("ada")
        first = await ada.agenerate(user("My name is Ada."))
        chunks = [chunk async for chunk in ada.astream("\n" + user("What is my name?"))]
        whole = await llm.agenerate(CAPITAL, session="bob")
        return [first, "".join(chunks), whole]

    assert asyncio.run(talk())[1:] == ["Your name is Ada.", "The capital of France is Paris."]


def test_many_threads_talk_to_their_own_sessions_at_once(llm: LLM):
    names = ["Ada", "Bob", "Zoe", "Tom", "Mia", "Ben"]

    def talk(name: str) -> str:
        session = llm.session(name)
        session(user(f"My name is {name}."))
        return session("\n" + user("What is my name?"))

    answers = in_threads([lambda name=name: talk(name) for name in names])
    assert answers == [f"Your name is {name}." for name in names]
    check_books(llm)


def test_a_shared_system_prompt_is_evaluated_once(llm: LLM):
    with counting(llm) as first:
        llm.session("ada")(SYSTEM + CAPITAL)
    with counting(llm) as second:
        llm.session("bob")(SYSTEM + STORY)
    shared = common_length(llm.tokenize(SYSTEM + CAPITAL), llm.tokenize(SYSTEM + STORY))
    assert shared >= llm.count_tokens(SYSTEM)
    assert first.evaluated == llm.count_tokens(SYSTEM + CAPITAL)
    assert second.evaluated == llm.count_tokens(SYSTEM + STORY) - shared


def test_a_shared_system_prompt_is_evaluated_once_by_sessions_that_start_together(llm: LLM):
    prompts = [SYSTEM + CAPITAL, SYSTEM + STORY]
    shared = common_length(*map(llm.tokenize, prompts))
    for _ in range(5):
        llm.reset_context()
        with counting(llm) as both:
            in_threads([lambda p=p: llm(p, session=p, max_tokens=3) for p in prompts])
        each_by_itself = sum(map(llm.count_tokens, prompts))
        assert each_by_itself - shared <= both.evaluated < each_by_itself - shared + MIN_SHARED


def common_length(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_nothing_is_shared_with_generations_that_have_no_session(llm: LLM):
    llm.session("ada")(SYSTEM + CAPITAL, max_tokens=2)
    with counting(llm) as alone:
        response = llm(SYSTEM + CAPITAL)
    assert (alone.evaluated, alone.reused) == (llm.count_tokens(SYSTEM + CAPITAL), 0)
    assert response.usage.cached_tokens == 0


# -------------------- forks


def test_a_fork_goes_its_own_way(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = ada.tokens
    bob = ada.fork("bob")
    rest, other = user("What is my name?"), END + CAPITAL
    with counting(llm) as turns:
        answers = [ada(rest), bob(other)]
    assert answers == ["Your name is Ada.", "The capital of France is Paris."]
    assert turns.evaluated == len(llm.tokenize(rest)) + len(llm.tokenize(other)) + 1
    assert [answer.usage.cached_tokens for answer in answers] == [held - 1, held], "its last token is evaluated once"
    assert bob(END + rest) == "Your name is Ada."


def test_a_fork_holds_what_its_parent_held_then(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = tokens_of(ada)
    fork = ada.fork()
    ada("\n" + STORY, max_tokens=30)
    assert tokens_of(fork) == held
    answer = fork(user("What is my name?"))
    assert answer == "Your name is Ada."
    assert answer.usage.cached_tokens >= len(held) - 1


def test_a_fork_made_while_its_parent_answers_holds_the_turns_before(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = tokens_of(ada)
    with ada("\n" + STORY, stream=True) as stream:
        next(stream)
        fork = ada.fork()
        answer = fork("\n" + user("What is my name?"))
    assert tokens_of(fork)[: len(held)] == held
    assert answer.usage.cached_tokens >= len(held) - 1
    assert answer == "Your name is Ada."
    check_books(llm)


def test_a_fork_outlives_its_parent(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = ada.tokens
    with the_engine_waiting(llm):
        fork = ada.fork("bob").fork("zoe")
        ada.close()
        llm.reset_context(session="bob")
    assert llm.sessions == ["zoe"]
    answer = fork("\n" + user("What is my name?"))
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", held - 1)
    check_books(llm)


def test_a_fork_of_an_empty_session_is_empty(llm: LLM):
    fork = llm.session("ada").fork("bob")
    assert (fork.name, fork.tokens) == ("bob", 0)
    assert fork(CAPITAL) == "The capital of France is Paris."


def test_a_fork_of_what_was_swapped_or_dropped_goes_on(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    swap_out(llm)
    assert ada.fork()("\n" + user("What is my name?")) == "Your name is Ada."
    llm.close()
    assert ada.fork()("\n" + user("What is my name?")) == "Your name is Ada."


def test_eight_forks_of_a_long_session_evaluate_what_follows_it_only(llm: LLM):
    parent = llm.session()
    parent(IDS[:1000], max_tokens=0)
    forks = [parent.fork() for _ in range(8)]
    suffixes = [IDS[1000 + 20 * i : 1005 + 21 * i] for i in range(8)]
    with counting(llm) as turns:
        streams = [fork(ids, max_tokens=5, stream=True) for fork, ids in zip(forks, suffixes, strict=True)]
        answers = [stream.read() for stream in streams]
    assert turns.evaluated == sum(len(suffix) for suffix in suffixes)
    assert turns.reused == 8 * 1000
    assert [answer.usage.cached_tokens for answer in answers] == [1000] * 8
    assert regret(llm, tokens_of(forks[7]), 1000 + len(suffixes[7])) < NEARLY_TIED


def test_the_name_of_a_fork_is_free_and_a_text(llm: LLM):
    ada = llm.session("ada")
    ada.fork("bob")
    with pytest.raises(SessionError, match="'bob' already"):
        ada.fork("bob")
    with pytest.raises(PromptTypeError, match="a str, not int"):
        ada.fork(3)  # type: ignore[arg-type]
    assert ada.fork().name not in ("ada", "bob")
    assert len(llm.sessions) == 3


# -------------------- names, handles, ends


def test_the_same_name_is_the_same_conversation(llm: LLM):
    llm.session("ada")(user("My name is Ada."))
    assert llm.session("ada")("\n" + user("What is my name?")) == "Your name is Ada."
    assert llm.sessions == ["ada"]


def test_sessions_without_a_name_are_different_conversations(llm: LLM):
    first, second = llm.session(), llm.session()
    assert first.name != second.name
    first(CAPITAL)
    assert second.tokens == 0


@pytest.mark.parametrize("name", [3, b"ada", ["ada"]])
def test_the_name_of_a_session_is_a_text(llm: LLM, name: Any):
    for use in (lambda: llm.session(name), lambda: llm(CAPITAL, session=name)):
        with pytest.raises(PromptTypeError, match="the name of a session is a str"):
            use()
    assert llm.sessions == []


def test_a_closed_session_is_forgotten_and_refuses_to_go_on(llm: LLM, tmp_path: Path):
    with llm.session("ada") as ada:
        ada(CAPITAL)
    ada.close()
    assert (llm.sessions, llm.stats.resident) == ([], 0)
    for use in (lambda: ada("Hi"), ada.fork, lambda: ada.save(tmp_path / "ada"), lambda: ada("Hi", stream=True)):
        with pytest.raises(SessionError, match="session 'ada' was closed"):
            use()
    assert "closed" in repr(ada)
    again = llm.session("ada")
    assert again.tokens == 0
    assert again(CAPITAL).usage.cached_tokens == 0


def test_the_room_of_a_closed_session_is_given_back(llm: LLM):
    ada = llm.session()
    ada(CAPITAL)
    assert llm.stats.kv_cells_used > 0
    ada.close()
    check_books(llm)
    assert (llm.stats.kv_cells_used, llm.stats.host_bytes) == (0, 0)


def test_closing_a_session_cancels_its_generations_and_no_others(llm: LLM):
    ada, bob = llm.session("ada"), llm.session("bob")
    stream, waiting = ada(STORY, stream=True, max_tokens=None, ignore_eos=True), ada(CAPITAL, stream=True)
    other = bob(CAPITAL, stream=True)
    next(stream)
    ada.close()
    assert stream.read().finish_reason == "cancelled"
    assert (waiting.read(), waiting.response.finish_reason) == ("", "cancelled")
    assert other.read() == "The capital of France is Paris."
    assert llm.sessions == ["bob"]
    check_books(llm)


def test_reset_context_forgets_one_session_or_all(llm: LLM):
    sessions = [llm.session(name) for name in ("ada", "bob", "zoe")]
    for session in sessions:
        session(CAPITAL, max_tokens=2)
    llm.reset_context(session="ada")
    llm.reset_context(session="nobody")
    assert llm.sessions == ["bob", "zoe"]
    assert sessions[0].tokens == 0
    assert sessions[1].tokens > 0
    llm.reset_context()
    assert (llm.sessions, llm.stats.n_ctx) == ([], 0)
    assert [session.tokens for session in sessions] == [0, 0, 0]
    response = sessions[1](CAPITAL)
    assert (response, response.usage.cached_tokens) == ("The capital of France is Paris.", 0)
    assert llm.sessions == ["bob"], "a handle that was not closed begins its conversation anew"


def test_reset_context_keeps_nothing_of_a_generation_in_flight(llm: LLM):
    ada = llm.session("ada")
    stream = ada(STORY, stream=True, max_tokens=None, ignore_eos=True)
    next(stream)
    llm.reset_context()
    assert stream.read().finish_reason == "cancelled"
    assert (ada.tokens, llm.sessions) == (0, [])


def test_close_keeps_the_token_ids_of_sessions_and_evaluates_them_again(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = tokens_of(ada)
    llm.close()
    assert (tokens_of(ada), llm.stats.dropped, llm.stats.host_bytes, llm.stats.n_ctx) == (held, 1, 0, 0)
    rest = "\n" + user("What is my name?")
    with counting(llm) as turn:
        answer = ada(rest)
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", 0)
    assert turn.evaluated == len(held) + len(llm.tokenize(rest))
    assert ada("\n" + CAPITAL).usage.cached_tokens > 0


def test_close_while_a_session_answers_keeps_what_was_said(llm: LLM):
    ada = llm.session("ada")
    stream = ada(STORY, stream=True, max_tokens=None, ignore_eos=True)
    next(stream)
    llm.close()
    text = stream.read()
    assert text.finish_reason == "cancelled"
    assert ada.tokens == text.usage.total_tokens
    assert llm.detokenize(tokens_of(ada)).endswith(text[-5:])


def test_the_session_unused_for_the_longest_is_forgotten_for_a_new_one(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, max_sessions=2, max_tokens=2) as llm:
        llm(CAPITAL, session="ada")
        llm(CAPITAL, session="bob")
        llm(CAPITAL, session="ada")
        llm(CAPITAL, session="zoe")
        assert sorted(llm.sessions) == ["ada", "zoe"]
        held = llm.session("ada")
        for name in ("tom", "mia"):
            llm(CAPITAL, session=name)
        assert sorted(llm.sessions) == ["ada", "mia"], "what your code holds is not forgotten"
        assert held.tokens > 0
        check_books(llm)
        assert llm.stats.resident + llm.stats.swapped + llm.stats.dropped == 2


def test_more_sessions_than_allowed_are_refused_while_all_are_held(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, max_sessions=2, max_tokens=2) as llm:
        ada, bob = llm.session("ada"), llm.session("bob")
        for use in (
            lambda: llm.session("zoe"),
            lambda: llm(CAPITAL, session="zoe"),
            ada.fork,
        ):
            with pytest.raises(SessionError, match=r"2 sessions already.*max_sessions"):
                use()
        assert llm.sessions == ["ada", "bob"]
        assert llm.session("ada").name == "ada"
        del bob
        gc.collect()
        llm.session("zoe")
        assert llm.sessions == ["ada", "zoe"]
        ada.close()
        llm.session("tom")


def test_a_session_that_answers_is_not_forgotten_for_another(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, max_sessions=1) as llm:
        with llm(STORY, session="ada", stream=True, max_tokens=None, ignore_eos=True) as stream:
            next(stream)
            with pytest.raises(SessionError, match="1 sessions already"):
                llm(CAPITAL, session="bob")
        assert llm(CAPITAL, session="bob") == "The capital of France is Paris."
        assert llm.sessions == ["bob"]


def test_a_session_keeps_its_llm_alive(tiny_chat: Path):
    llm = LLM(tiny_chat, temperature=0, n_threads=1)
    reference, ada = weakref.ref(llm), llm.session("ada")
    del llm
    gc.collect()
    assert ada(CAPITAL) == "The capital of France is Paris."
    del ada
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_session_cannot_be_copied_or_pickled(llm: LLM, duplicate: Callable[[object], object]):
    with pytest.raises(TypeError, match="a Session cannot be pickled or copied"):
        duplicate(llm.session("ada"))
    with pytest.raises(TypeError, match="an LLM cannot be pickled or copied"):
        duplicate(llm)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_sessions_in_a_forked_child_raise_instead_of_waiting_forever(tiny_chat: Path, tmp_path: Path):
    code = f"""
import os, warnings
warnings.simplefilter("ignore")
from cyllama import LLM, ForkedError
llm = LLM({str(tiny_chat)!r}, max_tokens=2)
ada = llm.session("ada")
ada("Hi")
path = {str(tmp_path / "ada")!r}
ada.save(path)
pid = os.fork()
if pid == 0:
    n = 0
    for use in (lambda: ada("Hi"), lambda: ada("Hi", stream=True), ada.fork, lambda: ada.save(path),
                lambda: llm.load_session(path, "bob"), lambda: llm("Hi", session="zoe")):
        try:
            use()
        except ForkedError:
            n += 1
    print("refused:", n, llm.sessions, flush=True)
    ada.close()
    llm.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("parent:", ada("Hi").finish_reason)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "refused: 6 ['ada']" in result.stdout
    assert "parent: length" in result.stdout


# -------------------- what a conversation holds after its answer


def test_history_ends_where_the_visible_text_ends(llm: LLM):
    ada = llm.session()
    whole = llm(STORY)
    stop = whole[33:42]
    answer = ada(STORY, stop_sequences=[stop])
    assert answer == whole[: whole.index(stop)]
    assert ada.tokens < answer.usage.total_tokens
    assert llm.detokenize(tokens_of(ada)) == llm.detokenize(llm.tokenize(STORY)) + answer
    history = tokens_of(ada)
    follow = ada("", max_tokens=20)
    assert regret(llm, [*history, *tokens_of(ada)[len(history) :]], len(history)) < NEARLY_TIED
    assert follow.usage.prompt_tokens == len(history)


def test_a_stop_sequence_at_once_leaves_the_prompt_only(llm: LLM):
    ada = llm.session()
    assert ada(CAPITAL, stop_sequences=["The"]) == ""
    assert ada.tokens == llm.count_tokens(CAPITAL)
    assert ada("") == "The capital of France is Paris."


def test_a_repeated_answer_keeps_the_ids_that_were_sampled(llm: LLM):
    letter = llm.tokenize("o")
    odd = {letter[0]: 1000.0}
    answer = llm(CAPITAL, session="ada", logit_bias=odd, max_tokens=6)
    sampled = letter * 6
    assert answer == "oooooo"
    assert llm.tokenize(answer) != sampled, "otherwise this shows nothing"
    n_prompt, rest = llm.count_tokens(CAPITAL), END + CAPITAL
    with counting(llm) as turn:
        again = llm(CAPITAL + answer + rest, session="ada")
    ada = llm.session("ada")
    assert tokens_of(ada)[n_prompt : n_prompt + 6] == sampled
    assert again.usage.prompt_tokens == n_prompt + 6 + llm.count_tokens(rest)
    assert again.usage.cached_tokens == n_prompt + 6 - 1
    assert turn.evaluated == llm.count_tokens(rest) + 1
    third = llm(CAPITAL + answer + rest + again + rest, session="ada")
    assert tokens_of(ada)[n_prompt : n_prompt + 6] == sampled
    assert third.usage.cached_tokens >= again.usage.total_tokens - 1 - 1


def test_a_changed_answer_is_made_into_tokens_anew(llm: LLM):
    letter = llm.tokenize("o")
    answer = llm(CAPITAL, session="ada", logit_bias={letter[0]: 1000.0}, max_tokens=6)
    changed = CAPITAL + answer[:-1] + "x" + END
    response = llm(changed, session="ada", max_tokens=1)
    assert tokens_of(llm.session("ada"))[:-1] == llm.tokenize(changed)
    assert response.usage.prompt_tokens == llm.count_tokens(changed)


def test_ids_that_were_given_are_not_mistaken_for_their_text(llm: LLM):
    odd = llm.tokenize("o") * 6
    assert odd != llm.tokenize("oooooo")
    llm([*llm.tokenize(CAPITAL), *odd], session="ada", max_tokens=0)
    whole = CAPITAL + "oooooo" + END
    llm(whole, session="ada", max_tokens=0)
    assert tokens_of(llm.session("ada")) == llm.tokenize(whole)


def test_a_cancelled_answer_is_kept_as_far_as_it_went(llm: LLM):
    ada = llm.session("ada")
    with ada(STORY, stream=True) as stream:
        for _ in range(5):
            next(stream)
    text = stream.response
    assert (text.finish_reason, ada.tokens) == ("cancelled", text.usage.total_tokens)
    whole = llm(STORY + text + END + CAPITAL, session="ada")
    assert whole.usage.cached_tokens >= text.usage.total_tokens - 1
    check_books(llm)


def test_a_turn_cancelled_before_it_began_leaves_nothing(llm: LLM):
    ada = llm.session("ada")
    with ada(STORY, stream=True, max_tokens=None, ignore_eos=True) as running:
        next(running)
        waiting = ada(CAPITAL, stream=True)
        waiting.close()
        assert (waiting.response, waiting.response.finish_reason) == ("", "cancelled")
    assert ada.tokens == running.response.usage.total_tokens


def test_an_exception_of_a_callback_ends_the_turn_and_not_the_session(llm: LLM):
    ada = llm.session("ada")
    held = ada(user("My name is Ada.")).usage.total_tokens

    def fail(chunk: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ada("\n" + CAPITAL, on_token=fail)
    answer = ada(END + user("What is my name?"))
    assert answer == "Your name is Ada."
    assert answer.usage.cached_tokens > held


def test_a_prompt_that_is_too_long_leaves_the_session_as_it_was(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = tokens_of(ada)
    with pytest.raises(ContextSizeError, match=rf"{len(held) + 500} tokens but n_ctx is 300"):
        ada(IDS[:500], n_ctx=300)
    with pytest.raises(ContextSizeError, match="2048"):
        ada(IDS[:2048])
    with pytest.raises(ContextSizeError, match="2048"):
        llm(IDS[:2100], session="ada")
    assert tokens_of(ada) == held
    answer = ada("\n" + user("What is my name?"))
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", len(held) - 1)


def test_a_conversation_ends_at_the_end_of_the_context(llm: LLM):
    ada = llm.session()
    response = ada(CAPITAL, n_ctx=100, max_tokens=None, ignore_eos=True)
    assert (response.finish_reason, ada.tokens) == ("length", 100)
    with pytest.raises(ContextSizeError, match="101 tokens but n_ctx is 100"):
        ada(IDS[:1], n_ctx=100)
    assert ada(IDS[:1], max_tokens=1).usage.prompt_tokens == 101


def test_a_failure_leaves_the_conversation_as_it_was(llm: LLM, monkeypatch: pytest.MonkeyPatch):
    """The failure is a real one: the context is closed under the engine, as no caller should."""
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held, step = tokens_of(ada), Engine._step

    def sabotaged_step(self: Engine) -> None:
        [request] = self._scheduler.running
        if len(request.tokens) == 10:
            assert self._context.context is not None
            self._context.context.close()
        step(self)

    monkeypatch.setattr(Engine, "_step", sabotaged_step)
    with pytest.raises(DecodeError, match="failed after 10 tokens"):
        ada("\n" + STORY)
    monkeypatch.undo()
    assert tokens_of(ada) == held
    assert ada("\n" + user("What is my name?")) == "Your name is Ada."
    check_books(llm)


# -------------------- several continuations


WILD: dict[str, Any] = {"seed": 1, "temperature": 2.0, "top_k": 0, "min_p": 0.0, "top_p": 1.0}


def test_several_continuations_evaluate_their_prompt_once(llm: LLM):
    with counting(llm) as eight:
        responses = llm(SYSTEM, n=8, max_tokens=8, ignore_eos=True, **WILD)
    n_prompt = llm.count_tokens(SYSTEM)
    assert isinstance(responses, list)
    assert len(set(responses)) > 1
    assert (eight.evaluated, eight.reused) == (n_prompt, 7 * n_prompt)
    assert [r.usage.cached_tokens for r in responses] == [0] + 7 * [n_prompt]
    assert [r.usage.completion_tokens for r in responses] == [8] * 8
    assert llm.stats.kv_cells_used == 0


def test_several_continuations_have_successive_seeds(llm: LLM):
    options: dict[str, Any] = {"temperature": 2.0, "top_k": 0, "min_p": 0.0, "top_p": 1.0, "max_tokens": 1}
    many = llm("The", n=16, seed=5, **options)
    assert many == [llm("The", seed=5 + i, **options) for i in range(16)]
    assert len(set(many)) > 8


def test_several_greedy_continuations_are_equal(llm: LLM):
    assert llm(CAPITAL, n=3) == ["The capital of France is Paris."] * 3


def test_one_continuation_is_a_list_of_one(llm: LLM):
    assert llm(CAPITAL, n=1) == ["The capital of France is Paris."]


def test_several_continuations_of_nothing_are_empty(llm: LLM):
    responses = llm(CAPITAL, n=3, max_tokens=0)
    assert [(r, r.finish_reason) for r in responses] == [("", "length")] * 3


def test_several_continuations_may_end_at_different_lengths(llm: LLM):
    responses = llm(STORY, n=6, max_tokens=60, stop_sequences=["."], **WILD)
    assert len({r.usage.completion_tokens for r in responses}) > 2
    check_books(llm)
    assert llm.stats.kv_cells_used == 0


def test_several_continuations_work_from_an_event_loop(llm: LLM):
    assert asyncio.run(llm.agenerate(CAPITAL, n=3)) == ["The capital of France is Paris."] * 3


def test_several_continuations_leave_sessions_alone(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = ada.tokens
    llm(STORY, n=6, temperature=1.0, max_tokens=10)
    answer = ada("\n" + user("What is my name?"))
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", held - 1)


@pytest.mark.parametrize(
    ("n", "error"), [(0, ConfigError), (-1, ConfigError), (100_000, ConfigError), (True, ConfigTypeError)]
)
def test_a_number_of_continuations_that_is_none_is_refused(llm: LLM, n: Any, error: type[Exception]):
    with pytest.raises(error, match=r"^n "):
        llm(CAPITAL, n=n)
    with pytest.raises(ConfigTypeError, match="a number of continuations, not str"):
        llm(CAPITAL, n="3")  # type: ignore[call-overload]


@pytest.mark.parametrize("option", [{"session": "ada"}, {"stream": True}, {"on_token": print}])
def test_several_continuations_are_refused_where_only_one_makes_sense(llm: LLM, option: dict[str, Any]):
    with pytest.raises(ConfigError, match=f"cannot be combined with {next(iter(option))}"):
        llm(CAPITAL, n=2, **option)
    assert llm.sessions == []


# -------------------- files


@pytest.fixture
def saved(llm: LLM, tmp_path: Path) -> Path:
    """A file of a session that knows a name."""
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    ada.save(tmp_path / "ada.session")
    ada.close()
    return tmp_path / "ada.session"


def test_a_loaded_session_goes_on_without_evaluating_anything_again(llm: LLM, saved: Path):
    ada = llm.load_session(saved)
    assert (ada.name, llm.sessions) == ("ada", ["ada"])
    held, rest = ada.tokens, "\n" + user("What is my name?")
    with counting(llm) as turn:
        answer = ada(rest)
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", held - 1)
    assert turn.evaluated == len(llm.tokenize(rest)) + 1


def test_a_loaded_session_knows_its_text(llm: LLM, tmp_path: Path):
    odd = {llm.tokenize("o")[0]: 1000.0}
    llm(CAPITAL, session="ada", logit_bias=odd, max_tokens=6)
    ada = llm.session("ada")
    held = tokens_of(ada)
    ada.save(tmp_path / "ada")
    bob = llm.load_session(tmp_path / "ada", "bob")
    llm(CAPITAL + "oooooo" + END, session="bob", max_tokens=0)
    assert tokens_of(bob)[: len(held)] == held


def test_a_fork_of_a_loaded_session_outlives_it(llm: LLM, saved: Path):
    with the_engine_waiting(llm):
        ada = llm.load_session(saved)
        held, fork = ada.tokens, ada.fork()
        ada.close()
    assert fork("\n" + user("What is my name?")).usage.cached_tokens == held - 1
    fork.close()
    check_books(llm)
    assert (llm.stats.kv_cells_used, llm.stats.host_bytes) == (0, 0)


def test_a_session_is_loaded_under_another_name(llm: LLM, saved: Path):
    first, second = llm.load_session(saved, "bob"), llm.load_session(saved)
    assert llm.sessions == ["bob", "ada"]
    with pytest.raises(SessionError, match="'ada' already"):
        llm.load_session(saved)
    with pytest.raises(PromptTypeError):
        llm.load_session(saved, 3)  # type: ignore[arg-type]
    assert llm.sessions == ["bob", "ada"]
    rest = "\n" + user("What is my name?")
    assert [first(rest), second(rest)] == ["Your name is Ada."] * 2


@pytest.mark.parametrize("options", [{}, {"n_ctx": 1500}, {"n_ctx": 64}, {"kv_cells": 300}, {"host_cache_mb": 1}])
def test_a_session_goes_on_in_another_llm(tiny_chat: Path, saved: Path, options: dict[str, Any]):
    with LLM(tiny_chat, temperature=0, n_threads=1, **options) as other:
        ada = other.load_session(saved)
        held = ada.tokens
        answer = ada("\n" + user("What is my name?"))
        assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", held - 1)
        check_books(other)


@pytest.mark.parametrize(
    "options",
    [
        {"type_k": "q8_0"},
        {"type_k": "f32", "type_v": "f32"},
        {"flash_attn": "disabled"},
        {"rope_freq_base": 5000.0},
        {"host_cache_mb": 0},
    ],
)
def test_a_state_that_does_not_fit_the_options_is_evaluated_again(
    tiny_chat: Path, saved: Path, options: dict[str, Any]
):
    with LLM(tiny_chat, temperature=0, n_threads=1, **options) as other:
        ada = other.load_session(saved)
        held, rest = tokens_of(ada), "\n" + user("What is my name?")
        with counting(other) as turn:
            answer = ada(rest)
        assert answer.usage.cached_tokens == 0
        assert turn.evaluated == len(held) + len(other.tokenize(rest))
        assert answer == other([*held, *other.tokenize(rest)])


def test_a_session_goes_on_in_another_process(saved: Path, tiny_chat: Path, tmp_path: Path):
    code = f"""
from cyllama import LLM
with LLM({str(tiny_chat)!r}, temperature=0) as llm:
    ada = llm.load_session({str(saved)!r})
    held = ada.tokens
    answer = ada({chr(10) + user("What is my name?")!r})
    print(answer, held - answer.usage.cached_tokens)
    ada.save({str(tmp_path / "back")!r})
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (result.stdout, result.stderr) == ("Your name is Ada. 1\n", "")
    with LLM(tiny_chat, temperature=0, n_threads=1) as llm:
        ada = llm.load_session(tmp_path / "back")
        assert ada("\n" + user("What is my name?")) == "Your name is Ada."


def test_a_session_without_a_kv_cache_is_saved_as_its_tokens(llm: LLM, tmp_path: Path):
    ada = llm.session("ada")
    ada.save(tmp_path / "empty")
    ada(user("My name is Ada."))
    llm.close()
    ada.save(tmp_path / "ada")
    assert (tmp_path / "ada").stat().st_size < 1000
    bob = llm.load_session(tmp_path / "ada", "bob")
    assert tokens_of(bob) == tokens_of(ada)
    answer = bob("\n" + user("What is my name?"))
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", 0)
    assert llm.load_session(tmp_path / "empty", "zoe").tokens == 0


def test_a_session_is_saved_wherever_its_kv_cache_is(llm: LLM, tmp_path: Path):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    swap_out(llm)
    assert llm.stats.swapped == 1
    ada.save(tmp_path / "ada")
    assert llm.stats.swapped == 1, "saving moves nothing"
    answer = llm.load_session(tmp_path / "ada", "bob")("\n" + user("What is my name?"))
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", ada.tokens - 1)


def test_saving_while_it_answers_saves_the_turns_before(llm: LLM, tmp_path: Path):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = tokens_of(ada)
    with ada("\n" + STORY, stream=True, max_tokens=None, ignore_eos=True) as stream:
        next(stream)
        ada.save(tmp_path / "ada")
    bob = llm.load_session(tmp_path / "ada", "bob")
    assert tokens_of(bob) == held
    assert bob("\n" + user("What is my name?")) == "Your name is Ada."
    check_books(llm)


def test_a_damaged_file_is_refused(llm: LLM, saved: Path, tmp_path: Path):
    data, dice, damaged = saved.read_bytes(), random.Random(0), tmp_path / "damaged"
    places = [*range(80), *(dice.randrange(len(data)) for _ in range(150)), *range(len(data) - 40, len(data))]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << dice.randrange(8)
        damaged.write_bytes(changed)
        with pytest.raises(SessionFileError, match=r"is damaged|holds no session"):
            llm.load_session(damaged)
    for end in [*range(100), *(dice.randrange(len(data)) for _ in range(50)), len(data) - 1]:
        damaged.write_bytes(data[:end])
        with pytest.raises(SessionFileError, match=r"is damaged|holds no session"):
            llm.load_session(damaged)
    damaged.write_bytes(data + b"\0")
    with pytest.raises(SessionFileError, match="is damaged"):
        llm.load_session(damaged)
    assert llm.sessions == []


def test_a_file_of_another_version_is_refused(llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session_file_module, "VERSION", 2)
    llm.session("ada").save(tmp_path / "ada")
    monkeypatch.undo()
    with pytest.raises(SessionFileError, match="has version 2, but this is version 1"):
        llm.load_session(tmp_path / "ada", "bob")


def test_a_session_of_another_model_is_refused(saved: Path, tmp_path: Path):
    path = write_random_model(tmp_path / "random.gguf", "llama")
    with LLM(path) as other:
        with pytest.raises(SessionFileError, match="saved with another model than 'random-llama'"):
            other.load_session(saved)
        assert other.sessions == []


def test_what_is_no_session_is_refused(llm: LLM, tmp_path: Path):
    (tmp_path / "text").write_text("Once upon a time")
    (tmp_path / "nothing").touch()
    for path in (tmp_path / "text", tmp_path / "nothing", TINY_CHAT):
        with pytest.raises(SessionFileError, match="holds no session"):
            llm.load_session(path)
    with pytest.raises(FileNotFoundError):
        llm.load_session(tmp_path / "missing")
    with pytest.raises(OSError, match="directory"):
        llm.load_session(tmp_path)
    assert llm.sessions == []


def test_a_session_that_cannot_be_written_is_still_there(llm: LLM, tmp_path: Path):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing" / "ada", tmp_path / "file" / "ada", tmp_path):
        with pytest.raises(OSError, match=r"."):
            ada.save(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert ada("\n" + user("What is my name?")) == "Your name is Ada."


def test_a_file_may_have_the_longest_name_that_the_system_allows(llm: LLM, tmp_path: Path):
    path = tmp_path / ("a" * 255)
    llm.session("ada").save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_that_could_not_be_written_is_as_it_was_before(llm: LLM, saved: Path):
    resource = pytest.importorskip("resource")
    before, ada = saved.read_bytes(), llm.load_session(saved)
    ada("\n" + STORY)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            ada.save(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
    ada.save(saved)
    assert llm.load_session(saved, "bob").tokens == ada.tokens


# -------------------- what llama-server's prompt cache does wrong


def test_a_swapped_state_is_used_only_as_far_as_its_tokens_are_the_same(llm: LLM):
    llm(SYSTEM + user("My name is Ada."), session="ada")
    swap_out(llm)
    other = SYSTEM + user("My dog has a name.")
    shared = common_length(llm.tokenize(SYSTEM + user("My name is Ada.")), llm.tokenize(other))
    with counting(llm) as turn:
        answer = llm(other, session="ada")
    assert answer.usage.cached_tokens == shared
    assert turn.evaluated == llm.count_tokens(other) - shared
    tokens = tokens_of(llm.session("ada"))
    assert tokens[: answer.usage.prompt_tokens] == llm.tokenize(other)
    assert regret(llm, tokens, answer.usage.prompt_tokens) < NEARLY_TIED


def test_a_state_whose_prefix_another_conversation_takes_stays_its_owners(llm: LLM):
    ada = llm.session("ada")
    ada(SYSTEM + user("My name is Ada."))
    held = ada.tokens
    swap_out(llm)
    shared = common_length(llm.tokenize(SYSTEM + user("My name is Ada.")), llm.tokenize(SYSTEM + STORY))
    other = llm(SYSTEM + STORY, session="bob", max_tokens=10)
    assert other.usage.cached_tokens == shared
    with counting(llm) as turn:
        answer = ada("\n" + user("What is my name?"))
    assert answer.usage.cached_tokens == held - 1
    assert turn.evaluated == len(llm.tokenize("\n" + user("What is my name?"))) + 1
    assert answer == "Your name is Ada."


@pytest.mark.parametrize("swapped", [False, True])
def test_nothing_stale_is_left_of_a_conversation_that_begins_anew(llm: LLM, swapped: bool):
    llm(IDS[:300], session="ada", max_tokens=5)
    if swapped:
        swap_out(llm)
    with counting(llm) as turn:
        answer = llm(CAPITAL, session="ada")
    assert (answer, answer.usage.cached_tokens) == ("The capital of France is Paris.", 0)
    assert turn.evaluated == llm.count_tokens(CAPITAL)
    assert llm.stats.kv_cells_used == answer.usage.total_tokens - 1


@pytest.mark.parametrize("swapped", [False, True])
def test_the_longest_prefix_wins_whoever_has_it(llm: LLM, swapped: bool):
    prompts = {name: IDS[:n] + IDS[1000 + n : 1010 + n] for name, n in {"ada": 50, "bob": 200, "zoe": 100}.items()}
    for name, ids in prompts.items():
        llm(ids, session=name, max_tokens=0)
        if swapped:
            swap_out(llm)
    assert llm(IDS[:250], session="new", max_tokens=0).usage.cached_tokens == 200
    assert llm(IDS[:300], session="ada", max_tokens=0).usage.cached_tokens == 250, "although it has 50 itself"
    for name in ("bob", "zoe"):
        assert llm([*prompts[name], 5], session=name, max_tokens=0).usage.cached_tokens == len(prompts[name])
    check_books(llm)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_prompt_that_is_known_to_its_end_has_logits_all_the_same(llm: LLM, swapped: bool):
    n_prompt = llm.count_tokens(SYSTEM + CAPITAL)
    expected = llm(SYSTEM + CAPITAL, session="ada")
    for session in ("ada", "ada", "bob"):
        if swapped:
            swap_out(llm)
        with counting(llm) as turn:
            answer = llm(SYSTEM + CAPITAL, session=session)
        assert (turn.evaluated, answer.usage.cached_tokens) == (1, n_prompt - 1)
        assert answer == expected


# -------------------- room


def test_an_idle_session_leaves_for_host_memory_and_comes_back_without_evaluation(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = ada.tokens
    assert (llm.stats.resident, llm.stats.swapped) == (1, 0)
    swap_out(llm)
    assert (llm.stats.resident, llm.stats.swapped, llm.stats.kv_cells_used) == (0, 1, 0)
    assert llm.stats.host_bytes > 0
    answer = ada("\n" + user("What is my name?"))
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", held - 1)
    assert (llm.stats.resident, llm.stats.host_bytes) == (1, 0)


def test_a_session_that_went_on_outlives_one_that_never_did(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, host_cache_mb=1, kv_cells=1536, max_tokens=1) as llm:
        ada = llm.session("ada")
        ada(IDS[2000:2300])
        ada(IDS[2300:2400])
        llm(IDS[1000:1450], session="once")
        llm(IDS[1500:1950], session="once more")
        crowd_out(llm)
        assert (llm.stats.swapped, llm.stats.dropped) == (2, 1)
        assert llm.stats.host_bytes <= 2**20
        assert ada(IDS[2400:2410]).usage.cached_tokens == 401
        with counting(llm) as turn:
            assert llm(IDS[1000:1460], session="once").usage.cached_tokens == 0
        assert turn.evaluated == 460


def test_sessions_that_were_dropped_answer_the_same(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, host_cache_mb=0, kv_cells=768) as llm:
        sessions = {name: llm.session(name) for name in ("Ada", "Bob", "Zoe", "Tom")}
        for name, session in sessions.items():
            session(user(f"My name is {name}."))
        crowd_out(llm)
        assert (llm.stats.dropped, llm.stats.host_bytes) == (4, 0)
        for name, session in sessions.items():
            held, rest = session.tokens, "\n" + user("What is my name?")
            with counting(llm) as turn:
                assert session(rest) == f"Your name is {name}."
            assert held < turn.evaluated + turn.reused == held + len(llm.tokenize(rest))


def test_without_a_host_cache_a_session_that_stays_in_the_context_is_not_evaluated_again(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, host_cache_mb=0) as llm:
        ada, bob = llm.session("ada"), llm.session("bob")
        ada(user("My name is Ada."), max_tokens=10)
        bob(CAPITAL)
        held = ada.tokens
        assert ada("\n" + user("What is my name?")).usage.cached_tokens == held - 1
        check_books(llm)


def test_a_full_host_cache_never_disturbs_a_running_request(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, host_cache_mb=1, kv_cells=1024) as llm:
        ada = llm.session("ada")
        n_prompt = llm.count_tokens(SYSTEM + STORY)
        with ada(SYSTEM + STORY, stream=True, max_tokens=120, ignore_eos=True) as stream:
            next(stream)
            for i in range(8):
                llm(IDS[300 * i : 300 * i + 300], session=f"other {i}", max_tokens=1)
            answer = stream.read()
        assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", 120)
        assert llm.stats.host_bytes <= 2**20
        assert llm.stats.dropped > 0
        assert regret(llm, tokens_of(ada), n_prompt) < NEARLY_TIED
        check_books(llm)


def test_more_sessions_than_fit_into_the_cells_take_turns(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, kv_cells=256, max_tokens=5) as llm:
        sessions = [llm.session() for _ in range(5)]
        for i, session in enumerate(sessions):
            session(IDS[100 * i : 100 * i + 80])
        assert llm.stats.swapped > 0
        for session in sessions:
            held = session.tokens
            with counting(llm) as turn:
                session(IDS[:10])
            assert turn.evaluated == 11
            assert regret(llm, tokens_of(session), held + 10) < NEARLY_TIED
        assert (llm.stats.n_ctx, llm.stats.contexts_created) == (256, 1)


def test_more_generations_than_fit_into_the_cells_all_come_to_their_end(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, kv_cells=256, max_tokens=100, ignore_eos=True) as llm:
        sessions = [llm.session() for _ in range(4)]
        answers = in_threads([lambda i=i: sessions[i](IDS[100 * i : 100 * i + 60]) for i in range(4)])
        for session, answer in zip(sessions, answers, strict=True):
            assert answer.usage.completion_tokens == 100
            assert regret(llm, tokens_of(session), 60) < NEARLY_TIED
        check_books(llm)


def test_a_session_as_large_as_all_cells_ends_there(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, kv_cells=256, ignore_eos=True) as llm:
        ada = llm.session("ada")
        answer = ada(IDS[:200])
        assert answer.finish_reason == "length"
        assert answer.usage.total_tokens in (256, 257)
        with pytest.raises(ContextSizeError, match="kv_cells=256"):
            ada(IDS[:100])
        assert llm(CAPITAL, ignore_eos=False) == "The capital of France is Paris."


def test_a_larger_context_keeps_what_sessions_have_evaluated(llm: LLM):
    ada, bob = llm.session("ada"), llm.session("bob")
    ada(user("My name is Ada."), max_tokens=100)
    n_ctx, held = llm.stats.n_ctx, ada.tokens
    with counting(llm) as growth:
        bob(IDS[:600], max_tokens=1)
    assert llm.stats.n_ctx > n_ctx
    assert (growth.contexts, growth.evaluated) == (1, 600)
    rest = "\n" + user("What is my name?")
    with counting(llm) as turn:
        answer = ada(rest)
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", held - 1)
    assert turn.evaluated == len(llm.tokenize(rest)) + 1


def take_turns(llm: LLM, n_turns: int = 4, **options: Any) -> None:
    """Let four conversations that fit into the first context alone, and not together, take turns."""
    for turn in range(1, n_turns + 1):
        for i in range(4):
            llm(IDS[600 * i : 600 * i + 60 * turn], session=f"{i}", max_tokens=1, **options)


def test_conversations_that_take_turns_do_not_drive_each_other_out_of_a_small_context(llm: LLM):
    with counting(llm) as turns:
        take_turns(llm)
    assert (llm.stats.resident, llm.stats.swapped) == (4, 0)
    assert turns.contexts <= 3, "each at least twice as large as the one before"
    assert turns.evaluated == 4 * 240
    n_ctx = llm.stats.n_ctx
    with counting(llm) as one_off:
        llm(IDS[:60], max_tokens=1)
    assert (llm.stats.n_ctx, one_off.contexts) == (n_ctx, 0), "a call without a session needs no room for others"


def test_short_conversations_share_the_first_context(llm: LLM):
    with counting(llm) as turns:
        take_turns(llm, n_turns=1)
    assert (llm.stats.n_ctx, llm.stats.resident, turns.contexts) == (256, 4, 1)


def test_without_memory_for_a_larger_context_conversations_take_turns_in_it(llm: LLM, monkeypatch: pytest.MonkeyPatch):
    take_turns(llm, n_turns=1)
    monkeypatch.setattr("cyllama.engine.context_params.available_memory", lambda: 0)
    with counting(llm) as turns:
        take_turns(llm)
    assert (llm.stats.n_ctx, turns.contexts) == (256, 0)
    assert llm.stats.swapped > 0
    assert turns.evaluated == 4 * 180 + 4, "the last token of a known prompt is evaluated again"


def test_a_context_grows_for_idle_conversations_only_as_far_as_they_cost_nobody_anything(llm: LLM):
    for i in range(12):
        llm(IDS[100 * i : 100 * i + 1000], session=f"{i}", max_tokens=1)
    assert llm.stats.n_ctx == 4096
    assert llm.stats.swapped > 0


def test_a_context_of_a_fixed_size_does_not_grow_for_idle_conversations(llm: LLM):
    with counting(llm) as turns:
        take_turns(llm, n_ctx=256)
    assert (llm.stats.n_ctx, turns.contexts) == (256, 1)
    assert llm.stats.swapped > 0
    assert turns.evaluated == 4 * 240


def test_a_larger_context_keeps_what_is_being_generated(llm: LLM):
    ada = llm.session("ada")
    n_prompt = llm.count_tokens(STORY)
    with counting(llm) as both, ada(STORY, stream=True, max_tokens=150, ignore_eos=True) as stream:
        next(stream)
        n_ctx = llm.stats.n_ctx
        llm(IDS[:900], session="bob", max_tokens=1)
        assert llm.stats.n_ctx > n_ctx
        answer = stream.read()
    assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", 150)
    assert both.evaluated == n_prompt + 900
    assert regret(llm, tokens_of(ada), n_prompt) < NEARLY_TIED


def test_an_answer_without_a_limit_grows_the_context_and_evaluates_nothing_again():
    with LLM(TINY_CHAT, **EXACT) as llm:  # far beyond its end, an answer of hundreds of near ties
        ada, n_prompt = llm.session(), llm.count_tokens(STORY)
        with counting(llm) as turn, ada(STORY, stream=True, max_tokens=None, ignore_eos=True) as stream:
            next(stream)
            n_ctx = llm.stats.n_ctx
            for _ in stream:
                if llm.stats.n_ctx > n_ctx:
                    break
        assert ada.tokens > n_ctx
        assert (turn.contexts, turn.evaluated) == (2, n_prompt)
        assert regret(llm, tokens_of(ada), n_prompt) < NEARLY_TIED


# -------------------- every kind of memory

KINDS = ("llama", "gemma3", "mamba", "jamba", "lfm2")
DROPS_TAILS = ("llama", "gemma3")


class Pair(SimpleNamespace):
    """The same model twice: one with sessions, one that evaluates every history from the beginning."""

    warm: LLM
    cold: LLM
    kind: str

    def turn(self, session: Session, ids: list[int], *, append: bool = True, max_tokens: int = 12) -> int:
        """Do a turn and compare its answer; return how many tokens were cached."""
        history = [*tokens_of(session), *ids] if append else ids
        options: dict[str, Any] = {"max_tokens": max_tokens, "ignore_eos": True}
        expected = self.cold(history, **options)
        answer = session(ids, **options) if append else session.llm(ids, session=session.name, **options)
        assert answer == expected
        assert answer.usage.prompt_tokens == len(history)
        assert tokens_of(session)[: len(history)] == history
        check_books(session.llm)
        return answer.usage.cached_tokens


@pytest.fixture(scope="module", params=KINDS)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    path = write_random_model(tmp_path_factory.mktemp("models") / "model.gguf", request.param)
    with LLM(path, **EXACT) as warm, LLM(path, **EXACT) as cold:
        yield Pair(warm=warm, cold=cold, kind=request.param, path=path)


@pytest.fixture
def pair(models: Pair) -> Iterator[Pair]:
    models.warm.reset_context()
    yield models
    models.warm.reset_context()


def test_every_turn_answers_as_if_all_were_evaluated(pair: Pair):
    ada = pair.warm.session()
    for i in range(4):
        held = ada.tokens
        assert pair.turn(ada, IDS[50 * i : 50 * i + 30]) == max(0, held - 1)
        if i == 2:
            swap_out(pair.warm)


def test_a_history_that_differs_before_its_end_answers_right(pair: Pair):
    ada = pair.warm.session()
    pair.turn(ada, IDS[:60])
    history = [*tokens_of(ada)[:67], *IDS[500:510]]
    cached = pair.turn(ada, history, append=False)
    assert cached == (67 if pair.kind in DROPS_TAILS else 59), "others go back to the end of the last prompt"
    cached = pair.turn(ada, [*history[:20], *IDS[600:610]], append=False)
    if pair.kind in (*RECURRENT, *HYBRID):
        assert cached == 0
    pair.turn(ada, IDS[700:705])


def test_a_repeated_prompt_evaluates_its_last_token(pair: Pair):
    ada = pair.warm.session()
    for expected in (0, 59, 59):
        assert pair.turn(ada, IDS[:60], append=False) == expected
    swap_out(pair.warm)
    assert pair.turn(ada, IDS[:60], append=False) == 59


def test_forks_answer_right(pair: Pair):
    ada = pair.warm.session()
    pair.turn(ada, IDS[:60])
    held, forks = ada.tokens, [ada.fork() for _ in range(3)]
    assert pair.turn(ada, IDS[100:110]) == held - 1
    for i, fork in enumerate(forks):
        assert pair.turn(fork, IDS[200 + 20 * i : 210 + 20 * i]) >= held - 1
    ada.close()
    assert pair.turn(forks[0].fork(), IDS[300:310]) == forks[0].tokens - 1


def test_prefixes_of_others_are_used_where_the_memory_allows_it(pair: Pair):
    pair.turn(pair.warm.session("ada"), IDS[:60])
    cached = pair.turn(pair.warm.session("bob"), [*IDS[:59], *IDS[100:140]])
    assert cached == 59
    pair.turn(pair.warm.session("zoe"), [*IDS[:40], *IDS[100:140]])
    pair.turn(pair.warm.session("ada"), IDS[200:210])


def test_a_saved_session_answers_right(pair: Pair, tmp_path: Path):
    ada = pair.warm.session()
    pair.turn(ada, IDS[:60])
    ada.save(tmp_path / "ada")
    with LLM(pair.path, **EXACT) as other:
        loaded = other.load_session(tmp_path / "ada")
        assert pair.turn(loaded, IDS[100:110]) == ada.tokens - 1
        assert tokens_of(loaded)[: ada.tokens] == tokens_of(ada)


@pytest.mark.parametrize("swa_full", [False, True])
def test_a_session_saved_with_other_windows_answers_right(pair: Pair, tmp_path: Path, swa_full: bool):
    with (
        LLM(pair.path, **EXACT, swa_full=swa_full) as first,
        LLM(pair.path, **EXACT, swa_full=not swa_full) as second,
    ):
        ada = first.session()
        pair.turn(ada, IDS[:60])
        ada.save(tmp_path / "ada")
        loaded = second.load_session(tmp_path / "ada")
        pair.turn(loaded, IDS[100:110])
        pair.turn(loaded, [*tokens_of(loaded)[:-5], *IDS[200:210]], append=False)
        pair.turn(loaded, [*IDS[:30], *IDS[300:310]], append=False)


def test_several_continuations_are_those_of_single_calls(pair: Pair):
    options: dict[str, Any] = {"temperature": 1.0, "max_tokens": 10, "ignore_eos": True}
    with counting(pair.warm) as six:
        many = pair.warm(IDS[:60], n=6, seed=3, **options)
    assert six.evaluated == 60
    assert many == [pair.cold(IDS[:60], seed=3 + i, **options) for i in range(6)]


@pytest.mark.parametrize("options", [{"host_cache_mb": 0}, {"kv_cells": 256}, {"kv_cells": 256, "host_cache_mb": 0}])
def test_scarce_memory_changes_no_answer(pair: Pair, options: dict[str, Any]):
    with LLM(pair.path, **EXACT, **options) as small:
        sessions = [small.session() for _ in range(4)]
        for i in range(2):
            for j, session in enumerate(sessions):
                start = 100 * j + 40 * i
                pair.turn(session, IDS[start : start + 40])
            swap_out(small)


def test_scarce_memory_changes_no_answer_of_those_that_run_together(pair: Pair):
    with LLM(pair.path, **EXACT, kv_cells=256, host_cache_mb=1) as small:
        sessions = [small.session() for _ in range(6)]
        for i in range(2):
            before = [tokens_of(session) for session in sessions]
            ids = [IDS[100 * j + 40 * i : 100 * j + 40 * i + 40] for j in range(6)]
            turns = zip(sessions, ids, strict=True)
            in_threads([lambda s=s, text=text: s(text, max_tokens=30, ignore_eos=True) for s, text in turns])
            for j, session in enumerate(sessions):
                history = [*before[j], *ids[j]]
                assert tokens_of(session)[: len(history)] == history
                assert len(tokens_of(session)) == len(history) + 30
                assert regret(pair.cold, tokens_of(session), len(history)) < 0.05
            check_books(small)


def test_a_session_of_a_chat_holds_what_its_history_renders_to(llm: LLM):
    """Token for token, with one end of each turn."""
    history: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
    session = llm.session()
    for question in ("And of Italy?", "Tell me a story about a fox.", "Why?"):
        answer = session.chat(history)
        history += [answer.message, {"role": "user", "content": question}]
        held = tokens_of(session)
        assert held == llm.tokenize(llm.render(history))[: len(held)]
