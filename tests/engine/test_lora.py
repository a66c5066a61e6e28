"""LoRA adapters: answers are those of merged weights, sets have time slices, and states are used with their own set."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from cyllama import (
    LLM,
    AdapterAccessError,
    AdapterLoadError,
    AdapterNotFoundError,
    ConfigError,
    ConfigTypeError,
    DecodeError,
    ForkedError,
    GenerationConfig,
    Stream,
    UnsupportedModelError,
)
from cyllama.engine import Request
from cyllama.engine.scheduler import AdapterSlices
from cyllama.engine.tuning import CHUNK, MIN_SHARED, SLICE_STEPS
from cyllama.llama.llama_cpp import LlamaAdapterLora, LlamaModel
from cyllama.session_file import SavedSession

from ..support.harness import ENDLESS, EXACT, Reference, Step, engine_of, held, in_threads, settled
from ..support.random_models import (
    HYBRID,
    RECURRENT,
    SLIDING,
    write_merged_model,
    write_random_adapter,
    write_random_bert,
    write_random_model,
)

NAMES = ("red", "green", "blue")
SETS: list[dict[str, float]] = [{}, {"red": 1.0}, {"green": 1.0, "blue": -0.5}]
ANSWER: dict[str, Any] = {"max_tokens": 24, "ignore_eos": True}
EXACT_ANSWER = EXACT | ANSWER


class Files(NamedTuple):
    """A model of random weights, and adapters for it."""

    model: Path
    adapters: dict[str, Path]

    def load(self, **options: Any) -> LLM:
        """Return an LLM with all of them loaded."""
        llm = LLM(self.model, **(EXACT_ANSWER | options))
        for name, path in self.adapters.items():
            llm.load_lora(name, path)
        return llm

    def reference(self, lora: dict[str, float]) -> Reference:
        """Return what the model answers with these adapters, without the engine."""
        model = LlamaModel(self.model)
        return Reference(model, [(LlamaAdapterLora(model, self.adapters[name]), lora[name]) for name in lora])


def write_files(folder: Path, architecture: str) -> Files:
    model = write_random_model(folder / f"{architecture}.gguf", architecture)
    adapters = {name: write_random_adapter(folder / f"{name}.gguf", model, i) for i, name in enumerate(NAMES)}
    return Files(model, adapters)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("lora"), "llama")


@pytest.fixture(scope="module")
def _loaded(files: Files) -> Iterator[LLM]:
    with files.load() as llm:
        yield llm


@pytest.fixture
def lora_llm(_loaded: LLM) -> LLM:
    """A model with adapters, without a context and without sessions."""
    _loaded.reset_context()
    return _loaded


def some_tokens(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(300, 1200, n).tolist()


def tokens_of(stream: Stream) -> list[int]:
    stream.read()
    return stream._request.tokens


def key_of(request: Request) -> tuple[tuple[str, float], ...]:
    """Return what tells the adapters that a request asks for."""
    return tuple(sorted(request.config.lora.items()))


# ------------------------------------------------------------------------------------------------------------- answers


def test_an_adapter_changes_the_answer_and_its_absence_does_not(lora_llm: LLM):
    prompt = some_tokens(20)
    without = lora_llm(prompt)
    answers = [lora_llm(prompt, lora={name: 1.0}) for name in NAMES]
    assert len({without, *answers}) == 4
    assert lora_llm(prompt, lora={"red": 0}) == lora_llm(prompt, lora={}) == without
    assert lora_llm(prompt, lora={"red": 0.0, "green": 1}) == answers[1]


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mamba", "jamba"])
def test_an_answer_is_that_of_a_model_with_the_adapters_in_its_weights(architecture: str, tmp_path: Path):
    files = write_files(tmp_path, architecture)
    scales = {"red": 0.8, "blue": -0.6}
    merged = write_merged_model(
        tmp_path / "merged.gguf", files.model, {files.adapters[n]: s for n, s in scales.items()}
    )
    reference = Reference(LlamaModel(merged))
    with files.load(lora=scales) as llm:
        for seed in range(8):
            with llm(some_tokens(30, seed), stream=True) as stream:
                tokens_of(stream)
            reference.check(stream._request)
    assert len(reference.near_ties) <= 1


def test_adapters_are_asked_for_in_every_way(files: Files):
    prompt, lora = "Once upon a time", {"red": 1.0}
    with files.load() as llm:
        expected, without = llm(prompt, lora=lora), llm(prompt)
        assert expected != without
        assert llm(prompt, GenerationConfig(lora=lora)) == expected
        assert llm(prompt, {"lora": lora}) == expected
        assert llm(prompt, {"lora": {"blue": 1.0}}, lora=lora) == expected, "the dict is replaced, not added to"
        assert "".join(llm(prompt, lora=lora, stream=True)) == expected
        assert llm(prompt, lora=lora, n=3) == [expected] * 3
        assert llm(prompt, lora=lora, session="ada") == llm.session("bob")(prompt, lora=lora) == expected

        async def ask() -> list[str]:
            stream = llm.astream(prompt, lora=lora)
            return [await llm.agenerate(prompt, lora=lora), "".join([chunk async for chunk in stream])]

        assert asyncio.run(ask()) == [expected] * 2
        messages = [{"role": "user", "content": "Hello"}]
        rendered = llm.render(messages)
        assert llm.chat(messages, lora=lora).text.strip() == llm(rendered, lora=lora).strip() != llm(rendered).strip()
    with files.load(lora=lora) as llm:
        assert llm(prompt) == expected
        assert llm(prompt, lora={}) == without
        assert llm.config.lora == lora


def test_log_probabilities_are_those_of_the_answer_alone(lora_llm: LLM):
    response = lora_llm(some_tokens(300), lora={"red": 1.0}, n_batch=64, logprobs=0)
    assert response.logprobs is not None
    assert len(response.logprobs) == response.usage.completion_tokens == 24
    assert all(each.logprob < 0 for each in response.logprobs)


def test_scales_make_a_difference(lora_llm: LLM):
    prompt = some_tokens(20)
    assert len({lora_llm(prompt, lora={"red": scale}) for scale in (-2, -1, 0, 0.5, 1, 2)}) == 6


# ------------------------------------------------------------------------------------------------- many callers at once


@pytest.mark.parametrize(
    "options",
    [
        {"n_parallel": 8},
        {"n_parallel": 3},
        {"n_parallel": 8, "kv_cells": 512, "host_cache_mb": 0},
        {"n_parallel": 4, "n_batch": 16},
    ],
    ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()),
)
def test_callers_with_three_sets_at_once_are_answered_as_if_alone(options: dict[str, Any], files: Files):
    references = [files.reference(lora) for lora in SETS]
    with files.load(**options) as llm:

        def ask(caller: int) -> list[Request]:
            """Ask with every set, in a conversation and outside of any."""
            requests = []
            for turn, (i, lora) in itertools.product(range(2), enumerate(SETS)):
                session = None if (caller + i) % 2 else f"{caller % 4} {i}"
                prompt = some_tokens(10 + 7 * caller + 40 * turn, seed=caller % 4)
                stream = llm(prompt, session=session, stream=True, lora=lora)
                stream.read()
                requests.append(stream._request)
            return requests

        for requests in in_threads([lambda caller=caller: ask(caller) for caller in range(8)]):
            for request in requests:
                reference = references[SETS.index(request.config.lora)]
                assert request.error is None
                assert len(request.tokens) == 24
                reference.check(request)
        assert llm.stats.adapter_switches > 3
    assert sum(len(reference.near_ties) for reference in references) <= 2


def test_a_step_has_one_set_and_all_that_generate_with_it(files: Files, steps: list[Step]):
    with files.load(n_parallel=6) as llm:
        with held(llm):
            streams = [llm(some_tokens(5, i), stream=True, lora=SETS[i % 3], max_tokens=40) for i in range(6)]
        for stream in streams:
            assert stream.read().usage.completion_tokens == 40
    for step in steps:
        assert len({key_of(request) for request in step.requests}) == 1
        assert len(step.requests) == 2, "both of the set are computed together"


def slices_of(steps: Sequence[Step]) -> list[tuple[tuple[tuple[str, float], ...], int]]:
    """Return the sets in the order of their slices, and how many steps each slice had."""
    keys = [key_of(next(iter(step.requests))) for step in steps]
    return [(key, len(list(group))) for key, group in itertools.groupby(keys)]


def test_sets_have_time_slices(files: Files, steps: list[Step]):
    with files.load(n_parallel=3) as llm:
        with held(llm):
            streams = [llm(some_tokens(3), stream=True, lora=lora, max_tokens=50) for lora in SETS]
        for stream in streams:
            stream.read()
        assert llm.stats.adapter_switches == len(slices_of(steps)) - 1, "the first slice is without adapters"
    slices = slices_of(steps)
    expected = [key_of(stream._request) for stream in streams]
    assert [key for key, _ in slices] == expected * (len(slices) // 3), "one after the other"
    assert {n for _, n in slices[:-3]} == {SLICE_STEPS}
    assert len(slices) == 3 * -(-50 // SLICE_STEPS)


def test_a_set_with_many_requests_has_no_more_slices_than_another(files: Files, steps: list[Step]):
    with files.load(n_parallel=5) as llm:
        with held(llm):
            many = [llm(some_tokens(3, i), stream=True, lora={"red": 1.0}, max_tokens=80) for i in range(4)]
            one = llm(some_tokens(3), stream=True, lora={"blue": 1.0}, max_tokens=80)
        for stream in (*many, one):
            stream.read()
    ends = [max(i for i, step in enumerate(steps) if stream._request in step.requests) for stream in (*many, one)]
    assert ends[-1] - max(ends[:-1]) <= SLICE_STEPS


def test_requests_that_keep_coming_do_not_keep_others_waiting(files: Files, steps: list[Step]):
    """A short answer after the other with one set, beside long ones with two others."""
    with files.load(n_parallel=3) as llm:
        with (
            llm(some_tokens(3), stream=True, lora={"red": 1.0}, **ENDLESS) as red,
            llm(some_tokens(3), stream=True, lora={"blue": 1.0}, **ENDLESS) as blue,
        ):
            next(red)
            next(blue)
            del steps[:]
            for i in range(10):
                llm(some_tokens(3, i), max_tokens=2)
            seen = list(steps)
        for stream in (red, blue):
            present = [i for i, step in enumerate(seen) if stream._request in step.requests]
            gaps = [j - i - 1 for i, j in itertools.pairwise([-1, *present, len(seen)])]
            assert max(gaps) <= 2 * SLICE_STEPS, "no more than a slice of each other set"
            assert len(present) >= len(seen) // 3, "short answers end before their slice does"


def test_the_first_slice_of_a_new_set_comes_after_those_that_wait(files: Files, steps: list[Step]):
    with files.load(n_parallel=3) as llm, llm(some_tokens(3), stream=True, lora={"red": 1.0}, **ENDLESS) as red:
        for _ in range(SLICE_STEPS):
            next(red)
        with held(llm):
            streams = [llm(some_tokens(3), stream=True, lora={n: 1.0}, max_tokens=20) for n in ("green", "blue")]
        del steps[:]
        for stream in streams:
            stream.read()
    slices = [key[0][0] for key, _ in slices_of(steps)]
    start = slices.index("green")
    assert slices[start : start + 4] == ["green", "blue", "red", "green"]


def test_a_set_that_waits_for_a_slice_goes_before_newcomers(lora_llm: LLM):
    """When sets arrive depends on the callers, so this looks at the slices themselves."""
    with held(lora_llm):
        requests = [lora_llm(some_tokens(3), stream=True, lora={name: 1.0})._request for name in NAMES]
        red, green, blue = requests
        slices = AdapterSlices()
        assert slices.choose([red, green]) == [red]
        for _ in range(SLICE_STEPS):
            slices.spend(0, CHUNK)
        assert slices.choose([blue, red, green]) == [green]
        assert slices.choose([blue, red]) == [blue], "its slice is over with its last request"
        slices.spend(CHUNK, CHUNK)
        assert slices.choose([blue, green, red]) == [red]
        assert slices.choose([green]) == [green], "alone, it needs no slice"
        for _ in range(SLICE_STEPS):
            slices.spend(0, CHUNK)
        assert slices.choose([green, red, blue]) == [red], "and has no steps left when others arrive"


def test_a_long_prompt_of_another_set_delays_a_stream_by_no_more_than_a_chunk(files: Files, steps: list[Step]):
    with files.load(n_parallel=2) as llm, llm(some_tokens(3), stream=True, **ENDLESS) as stream:
        next(stream)
        llm(some_tokens(1000), max_tokens=3, lora={"red": 1.0})
        seen = list(steps)
    prompts = [i for i, step in enumerate(seen) if step.prompts and stream._request not in step.prompts]
    assert sum(sum(seen[i].prompts.values()) for i in prompts) == 1000
    assert all(sum(seen[i].prompts.values()) <= seen[i].chunk for i in prompts)
    assert all(j - i == SLICE_STEPS + 1 for i, j in itertools.pairwise(prompts)), "a slice of the stream in between"


def test_prompts_of_two_sets_have_slices_as_well(files: Files, steps: list[Step]):
    with files.load(n_parallel=2, n_batch=256) as llm:
        with held(llm):
            streams = [llm(some_tokens(700), stream=True, lora={name: 1.0}, max_tokens=1) for name in NAMES[:2]]
        for stream in streams:
            stream.read()
    assert [(key[0][0], n) for key, n in slices_of(steps)] == [("red", 1), ("green", 1)] * -(-700 // CHUNK)


def test_n_parallel_limits_all_sets_together(files: Files):
    with files.load(n_parallel=2) as llm:
        with held(llm):
            streams = [llm(some_tokens(3, i), stream=True, lora=SETS[i % 3], max_tokens=10) for i in range(6)]
        most, engine = 0, engine_of(llm)
        for stream in streams:
            for _ in stream:
                most = max(most, engine.occupancy["running"])
        assert 1 <= most <= 2


# ------------------------------------------------------------------------------------------------------------- sessions


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


# ------------------------------------------------------------------------------------------------ loading and unloading


def test_what_is_loaded_has_a_name(files: Files):
    with LLM(files.model, **EXACT_ANSWER) as llm:
        assert llm.loras == []
        llm.load_lora("red", files.adapters["red"])
        llm.load_lora("also red", str(files.adapters["red"]))
        assert llm.loras == ["red", "also red"]
        prompt = some_tokens(20)
        assert llm(prompt, lora={"red": 1.0}) == llm(prompt, lora={"also red": 1.0})
        llm.unload_lora("red")
        assert llm.loras == ["also red"]
        for use in (lambda: llm(prompt, lora={"red": 1.0}), lambda: llm.unload_lora("red")):
            with pytest.raises(ConfigError, match=r"no adapter 'red': load_lora\(\) has loaded 'also red'"):
                use()
        with pytest.raises(ConfigError, match="there is an adapter 'also red' already"):
            llm.load_lora("also red", files.adapters["blue"])
        assert len(llm(prompt)) > 0


def test_the_defaults_of_an_llm_may_name_what_is_loaded_later(files: Files):
    with LLM(files.model, lora={"red": 1.0}, **EXACT_ANSWER) as llm:
        with pytest.raises(ConfigError, match=r"no adapter 'red': load_lora\(\) has loaded none"):
            llm("Hello")
        assert llm("Hello", lora={}).finish_reason == "length"
        llm.load_lora("red", files.adapters["red"])
        assert llm("Hello").finish_reason == "length"


def test_a_refused_name_leaves_no_session_behind(lora_llm: LLM):
    with pytest.raises(ConfigError, match="no adapter 'white'"):
        lora_llm("Hello", session="ada", lora={"white": 1.0})
    assert lora_llm.sessions == []


@pytest.mark.parametrize(
    "lora",
    [{"red": float("nan")}, {"red": float("inf")}, {"red": 1e39}, {"red": "1"}, {"red": None}, {7: 1.0}, {"": 1}],
)
def test_scales_and_names_are_checked(lora: dict[Any, Any], lora_llm: LLM):
    with pytest.raises(ConfigError, match=r"GenerationConfig\.lora"):
        lora_llm("Hello", lora=lora)


def test_lora_is_a_dict(lora_llm: LLM):
    wrong: Any
    for wrong in ("red", ["red"], None):
        with pytest.raises(ConfigError, match=r"GenerationConfig\.lora: "):
            lora_llm("Hello", lora=wrong)


def test_an_adapter_that_is_unloaded_during_a_run_is_used_to_its_end(files: Files):
    with files.load() as llm:
        adapter = weakref.ref(llm._runtime.adapter("red"))
        with llm(some_tokens(20), stream=True, lora={"red": 1.0}, max_tokens=200) as stream:
            next(stream)
            with held(llm):
                waiting = llm(some_tokens(20), stream=True, lora={"red": 1.0}, max_tokens=50)
                llm.unload_lora("red")
            with pytest.raises(ConfigError, match="no adapter 'red'"):
                llm(some_tokens(20), lora={"red": 1.0})
            stream.read()
        waiting.read()
        reference = files.reference({"red": 1.0})
        reference.check(stream._request)
        reference.check(waiting._request)
        settled(llm)
        gc.collect()
        assert adapter() is None, "it is freed, although the answer is kept"


def test_a_name_that_is_used_again_is_another_adapter(files: Files):
    prompt, lora = some_tokens(300), {"red": 1.0}
    with files.load() as llm:
        llm(prompt, session="ada", lora=lora)
        llm(prompt, session="bob", lora=lora)
        llm.unload_lora("red")
        llm.load_lora("red", files.adapters["blue"])
        with llm.session("ada")([5], stream=True, lora=lora) as stream:
            assert stream.read().usage.cached_tokens == 0
        files.reference({"blue": 1.0}).check(stream._request)
        llm.session("ada").close()
        with llm([*prompt, 5], session="eve", stream=True, lora=lora) as stream:
            assert stream.read().usage.cached_tokens == 0, "bob's states are those of the other one"
        files.reference({"blue": 1.0}).check(stream._request)


def test_the_same_file_loaded_again_is_the_same_adapter(files: Files):
    prompt = some_tokens(300)
    with files.load() as llm:
        llm(prompt, session="ada", lora={"red": 1.0})
        llm.unload_lora("red")
        llm.load_lora("crimson", files.adapters["red"])
        assert llm([*prompt, 5], session="bob", lora={"crimson": 1.0}).usage.cached_tokens == 300


def test_files_that_are_no_adapter(files: Files, tmp_path: Path):
    data, path = files.adapters["red"].read_bytes(), tmp_path / "adapter.gguf"
    mamba = write_random_adapter(tmp_path / "mamba.gguf", write_random_model(tmp_path / "model.gguf", "mamba"))
    activated = write_random_adapter(tmp_path / "activated.gguf", files.model, invocation=[5, 6])
    with files.load() as llm:
        before = llm("Hello", lora={"red": 1.0})
        with pytest.raises(AdapterNotFoundError, match="no adapter file at"):
            llm.load_lora("x", tmp_path / "missing.gguf")
        with pytest.raises(FileNotFoundError):
            llm.load_lora("x", "")
        with pytest.raises(AdapterAccessError, match="cannot read the adapter"):
            llm.load_lora("x", tmp_path)
        for content in (b"", b"GGUF", b"This is no adapter.", data[: len(data) // 2], data[:-1], data[:200]):
            path.write_bytes(content)
            with pytest.raises(AdapterLoadError):
                llm.load_lora("x", path)
        for wrong, match in ((files.model, "general.type"), (mamba, "architecture"), (activated, "activated LoRA")):
            with pytest.raises(AdapterLoadError, match=match):
                llm.load_lora("x", wrong)
        for name, wrong in ((7, path), ("", path), ("x", 7), ("x", None)):
            with pytest.raises(ConfigTypeError):
                llm.load_lora(name, wrong)  # type: ignore[arg-type]
        with pytest.raises(AdapterLoadError):
            llm.load_lora("x", "a\0b")
        assert llm.loras == list(NAMES)
        assert llm("Hello", lora={"red": 1.0}) == before


def test_models_that_do_not_generate_have_no_adapters(files: Files, tmp_path: Path):
    with LLM(write_random_bert(tmp_path / "bert.gguf")) as llm, pytest.raises(UnsupportedModelError):
        llm.load_lora("red", files.adapters["red"])


@pytest.mark.parametrize("n_prompt", [20, 1000])
def test_a_scale_that_is_too_large_fails_its_own_requests_only(n_prompt: int, files: Files):
    """Its states are NaN, and 0 times NaN is NaN: nothing of them may stay in the context."""
    too_large = {"red": 1e30}
    with files.load() as llm:
        idle = llm.session()
        idle(some_tokens(100), lora={"blue": 1.0})
        with held(llm):
            fine = [llm(some_tokens(20), stream=True, lora=lora, max_tokens=60) for lora in SETS]
            wrong = llm(some_tokens(n_prompt), stream=True, lora=too_large)
        with pytest.raises(DecodeError, match="not numbers"):
            wrong.read()
        for stream, lora in zip(fine, SETS, strict=True):
            stream.read()
            files.reference(lora).check(stream._request)
        session = llm.session()
        session("Hello", lora={"red": 1.0})
        n_before = session.tokens
        with pytest.raises(DecodeError, match="not numbers"):
            session(some_tokens(n_prompt), lora=too_large)
        assert session.tokens == n_before
        with session(some_tokens(n_prompt), stream=True, lora={"red": 1.0}) as stream:
            stream.read()
        files.reference({"red": 1.0}).check(stream._request)
        with idle([5], stream=True, lora={"blue": 1.0}) as stream:
            assert stream.read().usage.cached_tokens == 123
        files.reference({"blue": 1.0}).check(stream._request)
        assert llm(some_tokens(20), n=3) == [llm(some_tokens(20))] * 3
        with pytest.raises(DecodeError, match="not numbers"):
            llm(some_tokens(n_prompt), n=3, lora=too_large)
        assert llm(some_tokens(20), n=3) == [llm(some_tokens(20))] * 3


def test_nothing_stays_of_a_step_that_was_aborted_before_its_numbers_were_looked_at(files: Files):
    with files.load() as llm:
        alone = llm(some_tokens(20))
        for i in range(30):
            stream = llm(some_tokens(1000), stream=True, lora={"red": 1e30})
            time.sleep(i * 0.0005)  # to be cancelled in the middle of its first step, whenever that is
            stream.close()
            assert llm(some_tokens(20)) == alone


def test_cancelling_one_set_leaves_the_others_alone(files: Files):
    with files.load() as llm:
        with held(llm):
            streams = [llm(some_tokens(20), stream=True, lora={name: 1.0}, **ENDLESS) for name in NAMES[:2]]
            other = llm(some_tokens(20), stream=True, lora={"blue": 1.0}, max_tokens=60)
        next(streams[0])
        streams[0].close()
        streams[1].close()
        other.read()
        files.reference({"blue": 1.0}).check(other._request)


def test_an_adapter_is_loaded_while_others_generate(files: Files):
    with LLM(files.model, **EXACT_ANSWER) as llm, llm(some_tokens(3), stream=True, **ENDLESS) as stream:
        next(stream)
        for name, path in files.adapters.items():
            llm.load_lora(name, path)
            with llm(some_tokens(20), stream=True, lora={name: 1.0}) as answer:
                answer.read()
            files.reference({name: 1.0}).check(answer._request)
        next(stream)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_refused(lora_llm: LLM, files: Files):
    lora_llm("Hello", lora={"red": 1.0})
    calls: list[Callable[[], object]] = [
        lambda: lora_llm.load_lora("x", files.adapters["red"]),
        lambda: lora_llm.unload_lora("red"),
    ]
    for call in calls:
        pid = os.fork()
        if pid == 0:
            try:
                call()
            except ForkedError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert lora_llm.loras == list(NAMES)
