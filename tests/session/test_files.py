"""Sessions saved to files and loaded again."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM
from cyllama import session_file as session_file_module
from cyllama.errors import PromptTypeError, SessionError, SessionFileError
from cyllama.models import TINY_CHAT

from ..support.conversations import (
    CAPITAL,
    END,
    STORY,
    check_integrity,
    counting,
    swap_out,
    tokens_of,
    user,
)
from ..support.harness import ENDLESS
from ..support.harness import held as the_engine_waiting
from ..support.random_models import write_random_model


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
    check_integrity(llm)
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
        check_integrity(other)


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
    with ada("\n" + STORY, stream=True, **ENDLESS) as stream:
        next(stream)
        ada.save(tmp_path / "ada")
    bob = llm.load_session(tmp_path / "ada", "bob")
    assert tokens_of(bob) == held
    assert bob("\n" + user("What is my name?")) == "Your name is Ada."
    check_integrity(llm)


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
    monkeypatch.setattr(session_file_module, "VERSION", 3)
    llm.session("ada").save(tmp_path / "ada")
    monkeypatch.undo()
    with pytest.raises(SessionFileError, match="has version 3, but this is version 2"):
        llm.load_session(tmp_path / "ada", "bob")


def test_a_session_of_another_model_is_refused(saved: Path, tmp_path: Path):
    path = write_random_model(tmp_path / "random.gguf", "llama")
    with LLM(path) as other:
        with pytest.raises(SessionFileError, match="saved with another model than 'random-llama'"):
            other.load_session(saved)
        assert other.sessions == []


def test_a_file_that_is_not_a_session_is_refused(llm: LLM, tmp_path: Path):
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
