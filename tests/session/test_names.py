"""Names and handles of sessions, and how sessions end."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM
from cyllama.errors import PromptTypeError, SessionError

from ..support.conversations import (
    CAPITAL,
    STORY,
    check_integrity,
    counting,
    tokens_of,
    user,
)
from ..support.harness import ENDLESS


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
    check_integrity(llm)
    assert (llm.stats.kv_cells_used, llm.stats.host_bytes) == (0, 0)


def test_closing_a_session_cancels_its_generations_and_no_others(llm: LLM):
    ada, bob = llm.session("ada"), llm.session("bob")
    stream, waiting = ada(STORY, stream=True, **ENDLESS), ada(CAPITAL, stream=True)
    other = bob(CAPITAL, stream=True)
    next(stream)
    ada.close()
    assert stream.read().finish_reason == "cancelled"
    assert (waiting.read(), waiting.response.finish_reason) == ("", "cancelled")
    assert other.read() == "The capital of France is Paris."
    assert llm.sessions == ["bob"]
    check_integrity(llm)


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
    assert llm.sessions == ["bob"], "a handle that was not closed begins its conversation again"


def test_reset_context_keeps_nothing_of_a_generation_in_flight(llm: LLM):
    ada = llm.session("ada")
    stream = ada(STORY, stream=True, **ENDLESS)
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
    stream = ada(STORY, stream=True, **ENDLESS)
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
        check_integrity(llm)
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
        with llm(STORY, session="ada", stream=True, **ENDLESS) as stream:
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
