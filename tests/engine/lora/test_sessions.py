"""Sessions with adapters: no state of one set is used for another."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyllama import (
    LLM,
)
from cyllama.engine.tuning import CHUNK, MIN_SHARED
from cyllama.session_file import SavedSession

from ...support.harness import Step, held
from ...support.lora import EXACT_ANSWER, NAMES, SETS, Files, slices_of, some_tokens, write_files
from ...support.random_models import (
    HYBRID,
    RECURRENT,
    SLIDING,
)


def test_a_session_goes_on_with_the_same_adapters_only(files: Files):
    references = [files.reference(lora) for lora in SETS]
    with files.load() as llm:
        session, seen, previous = llm.session(), list[int](), -1
        for i in (1, 1, 2, 0, 0, 1, 2, 2):
            with session(some_tokens(30, i), stream=True, lora=SETS[i]) as stream:
                usage = stream.read().usage
            references[i].check(stream._request)
            assert stream._request.prompt[: len(seen)] == seen, "what was said before stays"
            assert usage.cached_tokens == (len(seen) - 1 if i == previous else 0)
            seen, previous = [*stream._request.prompt, *stream._request.tokens], i
            assert session.tokens == len(seen)


@pytest.mark.parametrize("architecture", [*SLIDING, *RECURRENT[:1], *HYBRID])
def test_sessions_of_every_kind_of_memory_do_not_mix_states(architecture: str, tmp_path: Path):
    files = write_files(tmp_path, architecture)
    references = [files.reference(lora) for lora in SETS]
    with files.load(n_parallel=3, max_tokens=8) as llm:
        sessions = [llm.session() for _ in range(2)]
        for turn, i in enumerate((0, 1, 1, 2, 0, 2, 2, 1)):
            with held(llm):
                streams = [
                    session(some_tokens(20, turn), stream=True, lora=SETS[(i + j) % 3])
                    for j, session in enumerate(sessions)
                ]
            for j, stream in enumerate(streams):
                stream.read()
                references[(i + j) % 3].check(stream._request)


def test_conversations_share_a_beginning_with_the_same_adapters_only(lora_llm: LLM, steps: list[Step]):
    prompt = some_tokens(300)
    lora_llm(prompt, session="none")
    lora_llm(prompt, session="red", lora={"red": 1.0})
    again = lora_llm([*prompt, 5], session="also red", lora={"red": 1.0})
    assert again.usage.cached_tokens == 300
    for i, lora in enumerate(({"red": 0.5}, {"blue": 1.0}, {"red": 1.0, "blue": 1.0})):
        assert lora_llm([*prompt, 5], session=f"other {i}", lora=lora).usage.cached_tokens == 0
    assert lora_llm([*prompt, 5], session="also none").usage.cached_tokens == 300


def test_new_conversations_wait_for_a_common_prefix_of_the_same_adapters_only(files: Files, steps: list[Step]):
    prompt = some_tokens(300)
    with files.load(n_parallel=4, n_batch=CHUNK) as llm:
        with held(llm):
            streams = [
                llm([*prompt, i], session=f"{i}", stream=True, lora=lora)
                for i, lora in enumerate(({"red": 1.0}, {"red": 1.0}, {"blue": 1.0}, {"blue": 1.0}))
            ]
        cached = [stream.read().usage.cached_tokens for stream in streams]
        evaluated = llm.stats.prompt_tokens_evaluated
    assert cached[0] == cached[2] == 0
    assert all(300 - MIN_SHARED < n <= 300 for n in (cached[1], cached[3])), "all but a few"
    first = [(key[0][0], n) for key, n in slices_of(steps)[:4]]
    assert first == [("red", 1), ("blue", 1)] * 2, "chunk by chunk: they do not wait for each other"
    assert evaluated == 4 * 301 - sum(cached)


def test_a_fork_goes_on_with_the_adapters_of_its_source(lora_llm: LLM, files: Files):
    session = lora_llm.session()
    session(some_tokens(50), lora={"red": 1.0})
    fork, other = session.fork(), session.fork()
    with fork(some_tokens(5, 1), stream=True, lora={"red": 1.0}) as stream:
        assert stream.read().usage.cached_tokens == session.tokens - 1
    files.reference({"red": 1.0}).check(stream._request)
    with other(some_tokens(5, 1), stream=True) as stream:
        assert stream.read().usage.cached_tokens == 0
    files.reference({}).check(stream._request)
    assert session(some_tokens(5, 2), lora={"red": 1.0}).usage.cached_tokens > 0, "it was left as it was"


def test_a_saved_session_is_of_use_for_the_same_adapters_only(files: Files, tmp_path: Path):
    with files.load() as llm:
        session = llm.session("ada")
        session(some_tokens(50), lora={"green": 1.0, "blue": -0.5})
        tokens = session.tokens
        session.save(tmp_path / "ada")
        expected = session(some_tokens(5, 1), lora={"green": 1.0, "blue": -0.5})
    with LLM(files.model, **EXACT_ANSWER) as llm:
        for name, color in (("one", "green"), ("two", "blue"), ("three", "red")):
            llm.load_lora(name, files.adapters[color])
        for i, (lora, cached) in enumerate(
            (
                ({"two": -0.5, "one": 1.0}, tokens - 1),
                ({"two": -0.5, "one": 1.5}, 0),
                ({"one": 1.0}, 0),
                ({"three": 1.0, "two": -0.5}, 0),
                ({}, 0),
            )
        ):
            session = llm.load_session(tmp_path / "ada", f"ada {i}")
            answer = session(some_tokens(5, 1), lora=lora)
            assert answer.usage.cached_tokens == cached, lora
            assert (answer == expected) == bool(cached)
            session.close()


def test_a_session_saved_without_adapters_is_not_used_with_some(files: Files, tmp_path: Path):
    with files.load() as llm:
        session = llm.session("ada")
        session(some_tokens(50), lora={"red": 1.0})
        session.save(tmp_path / "red")
        session(some_tokens(50))
        session.save(tmp_path / "ada")
        keys = {SavedSession.read(tmp_path / name).cache_key for name in ("red", "ada")}
        assert len(keys) == 2, "who does not know of adapters does not use the state either"
        for lora, used in (({}, True), ({"red": 1.0}, False)):
            llm.reset_context()
            answer = llm.load_session(tmp_path / "ada")(some_tokens(5), lora=lora)
            assert (answer.usage.cached_tokens > 0) == used


def test_a_growing_context_keeps_states_and_adapters(files: Files):
    reference = files.reference({"red": 1.0})
    with files.load(n_parallel=2) as llm:
        session = llm.session()
        session(some_tokens(50), lora={"red": 1.0})
        contexts = llm.stats.contexts_created
        with (
            llm(some_tokens(10), stream=True, lora={"red": 1.0}, max_tokens=400) as running,
            llm(some_tokens(3000), stream=True, lora={"blue": 1.0}) as large,
        ):
            running.read()
            large.read()
        assert llm.stats.contexts_created > contexts
        reference.check(running._request)
        files.reference({"blue": 1.0}).check(large._request)
        with session(some_tokens(5), stream=True, lora={"red": 1.0}) as stream:
            assert stream.read().usage.cached_tokens > 0
        reference.check(stream._request)


def test_close_keeps_the_adapters_loaded(lora_llm: LLM):
    prompt = some_tokens(20)
    before = lora_llm(prompt, lora={"red": 1.0})
    for give_back in (lora_llm.close, lora_llm.reset_context):
        give_back()
        assert lora_llm.loras == list(NAMES)
        assert lora_llm(prompt, lora={"red": 1.0}) == before
