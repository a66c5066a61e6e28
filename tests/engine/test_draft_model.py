"""A draft model changes how fast an answer comes, and nothing else.

As in ``test_speculation.py``, what is compared with ``n_ubatch=1`` is equal to the last bit, on every processor. All
models here have the vocabulary of the embedded one.
"""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama import LLM, ConfigError, ContextMemoryError, ForkedError, ModelConfig, Response
from cyllama.config import as_config
from cyllama.engine import Request, draft_context
from cyllama.engine.draft_context import DraftContext
from cyllama.engine.drafting import Credit, StepTimes
from cyllama.engine.model_drafts import DraftTimes
from cyllama.models import TINY_CHAT

from ..support.cold_start import EXACT
from ..support.drafts import IDS, MANY, TEXTS, check_all, check_same, check_turns, free_drafts, outcome, sampling
from ..support.harness import ENDLESS, engine_of, held, in_threads, settled, turn
from ..support.random_models import HYBRID, RECURRENT, write_random_adapter, write_random_model
from ..support.real_models import needs, path_of
from ..support.vision import png, write_projector

ALONE: dict[str, Any] = {"n_ubatch": 1, "n_threads": 1}


@pytest.fixture(scope="module", autouse=True)
def drafts_cost_nothing() -> Iterator[None]:
    """As ``free_drafts``, and the draft model's work costs nothing either."""
    with free_drafts() as patch:
        patch.setattr(StepTimes, "seconds", lambda self, width: 10.0)
        patch.setattr(Credit, "allows", lambda self, seconds: True)
        patch.setattr(DraftTimes, "step", lambda self, plain: 0.0)
        patch.setattr(DraftTimes, "prompt_token", lambda self, plain: 0.0)
        yield


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models by name: the embedded one, and some that say noise."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {"noise": ("llama", 0), "other noise": ("llama", 1), "windows": ("gemma3", 0)}
    models = {name: write_random_model(folder / name, kind, seed) for name, (kind, seed) in kinds.items()}
    return {"tiny": TINY_CHAT, **models}


@pytest.fixture(scope="module")
def pairs(paths: dict[str, Path]) -> Iterator[Callable[[str, str], LLM]]:
    """What loads a model with a draft model, each pair once."""
    loaded: dict[tuple[str, str], LLM] = {}

    def load(model: str, draft: str) -> LLM:
        if (model, draft) not in loaded:
            loaded[model, draft] = LLM(paths[model], draft_model=paths[draft], **ALONE)
        return loaded[model, draft]

    yield load
    for llm in loaded.values():
        llm.close()


@pytest.fixture
def tiny(pairs: Callable[[str, str], LLM]) -> LLM:
    """The embedded model, which drafts for itself."""
    return pairs("tiny", "tiny")


def both_ways(llm: LLM, prompt: str | list[int], **options: Any) -> Response:
    """Return an answer with drafts, or its error, which is the same without."""
    drafted, plain = (outcome(llm, prompt, **options, speculation=how) for how in ("draft", "off"))
    check_same(drafted, plain)
    return drafted


PAIRS = st.sampled_from([("tiny", "tiny"), ("tiny", "noise"), ("noise", "other noise"), ("noise", "windows")])


@MANY
@given(pair=PAIRS, part=st.lists(st.sampled_from(IDS), min_size=1, max_size=12), n=st.integers(1, 4), options=sampling)
def test_text_is_the_same_with_a_draft_model(
    pairs: Callable[[str, str], LLM], pair: tuple[str, str], part: list[int], n: int, options: dict[str, Any]
):
    both_ways(pairs(*pair), part * n, **options)


@MANY
@given(text=TEXTS, options=sampling)
def test_answers_are_the_same_with_a_draft_model(tiny: LLM, text: str, options: dict[str, Any]):
    both_ways(tiny, turn(text), **options)


def test_a_model_that_drafts_for_itself_is_always_right(tiny: LLM):
    before = tiny.stats
    response = both_ways(tiny, turn("Tell me a story about a fox."), temperature=0, max_tokens=100)
    after = tiny.stats
    assert response.timings.tokens_accepted == response.timings.tokens_drafted >= 80
    assert after.model_tokens_accepted - before.model_tokens_accepted == response.timings.tokens_accepted
    assert after.steps - before.steps < 120  # 100 of them without drafts


def test_a_model_that_says_something_else_is_hardly_ever_right(pairs: Callable[[str, str], LLM]):
    llm = pairs("tiny", "noise")
    before = llm.stats
    both_ways(llm, turn("Tell me a story about a fox."), temperature=0, max_tokens=150)
    after = llm.stats
    n_drafted = after.model_tokens_drafted - before.model_tokens_drafted
    assert n_drafted > 0
    assert after.model_tokens_accepted - before.model_tokens_accepted <= n_drafted / 4


def test_an_llm_with_a_draft_model_uses_it_unless_told_otherwise(tiny: LLM):
    assert tiny.config.speculation == "draft"
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 60}
    default, off = (
        tiny(turn("Write fox fox fox."), **options),
        tiny(turn("Write fox fox fox."), speculation="off", **options),
    )
    assert default.timings.tokens_drafted > 0 == off.timings.tokens_drafted
    before = tiny.stats.model_tokens_drafted
    lookup = tiny(turn("Write fox fox fox."), speculation="lookup", **options)
    assert lookup.timings.tokens_drafted > 0
    assert tiny.stats.model_tokens_drafted == before
    assert default == off == lookup


def test_drafts_of_a_model_that_is_not_there_are_refused():
    with pytest.raises(ConfigError, match="speculation='draft' needs a model that drafts tokens"):
        LLM(speculation="draft")
    with LLM(n_threads=1) as llm, pytest.raises(ConfigError, match="load the LLM with draft_model"):
        llm("Hello", speculation="draft")


def test_what_cannot_be_a_draft_model_is_told_what_can():
    accepted = (
        r"draft_model: input should be the path or the name of a model; a loaded LLM .*LLM\(..., draft_model=llm\)"
    )
    with LLM(n_threads=1) as llm:
        for make in (
            lambda: LLM(draft_model=3),
            lambda: as_config(ModelConfig, {"draft_model": llm}),
            lambda: LLM(model_config={"draft_model": llm}),
        ):
            with pytest.raises(ConfigError, match=accepted):
                make()
    assert as_config(ModelConfig, {"draft_model": Path("small.gguf")}).draft_model == "small.gguf"


# --- conversations, callers


@settings(MANY, max_examples=10)
@given(seed=st.integers(0, 1000), n_turns=st.integers(1, 4), options=sampling)
def test_turns_of_a_session_are_the_same(tiny: LLM, seed: int, n_turns: int, options: dict[str, Any]):
    check_turns(tiny, "draft", seed, n_turns, options)


def owners(llm: LLM) -> list[object]:
    """Return whose tokens the context of the draft model has."""
    settled(llm)
    drafts = engine_of(llm)._drafts
    assert drafts is not None
    return list(drafts.owners)


def test_the_draft_model_keeps_conversations_and_nothing_else(tiny: LLM):
    tiny.close()
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}
    assert tiny(turn("Hello"), **options).timings.tokens_drafted
    assert owners(tiny) == []
    ada, bob = tiny.session("ada"), tiny.session("bob")
    for session in (ada, bob):
        session(turn("Tell me a story."), **options)
    assert len(owners(tiny)) == 2
    before = tiny.stats.draft_steps
    ada(turn("Again."), **options)
    assert tiny.stats.draft_steps - before < 45  # nothing of the first turn was evaluated again in chunks
    ada.close()
    assert len(owners(tiny)) == 1
    bob.close()
    assert owners(tiny) == []


def test_more_conversations_than_the_draft_model_has_room_for(paths: dict[str, Path], requests: list[Request]):
    with LLM(TINY_CHAT, draft_model=paths["tiny"], n_parallel=2, **EXACT) as llm:
        sessions = [llm.session(f"{i}") for i in range(12)]
        for _ in range(2):
            for session in sessions:
                session(turn("Write fox fox fox."), max_tokens=20)
        assert len(owners(llm)) < len(sessions)
        check_all(llm, requests)


def test_several_continuations_of_a_prompt_are_the_same(tiny: LLM):
    options: dict[str, Any] = {"n": 2, "max_tokens": 40, "seed": 11, "temperature": 0.8, "logprobs": 1}
    drafted, plain = (tiny(turn("Write fox fox fox."), speculation=how, **options) for how in ("draft", "off"))
    assert drafted == plain


@pytest.mark.parametrize("model", ["tiny", "noise", "windows"])
def test_callers_at_once_get_what_each_gets_alone(model: str, paths: dict[str, Path], requests: list[Request]):
    with LLM(paths[model], draft_model=paths[model], n_parallel=4, **EXACT) as llm:
        prompts = [turn(f"Write {word} {word} {word}.") for word in ("fox", "owl", "bear", "cat", "dog", "goat")]
        for how in ("draft", "draft", "lookup"):
            in_threads([lambda p=p, how=how: llm(p, max_tokens=60, speculation=how) for p in prompts])
        assert llm.stats.model_tokens_accepted > 0
        assert owners(llm) == []
        check_all(llm, requests)


def test_few_cells_are_shared_by_callers_with_drafts(requests: list[Request]):
    with LLM(TINY_CHAT, draft_model=TINY_CHAT, n_parallel=3, kv_cells=256, **EXACT) as llm:
        prompts = [turn(f"Write {word} {word} {word}.") for word in ("fox", "owl", "bear", "cat")]
        with held(llm):
            streams = [llm(p, max_tokens=90, ignore_eos=True, stream=True) for p in prompts]
        assert [stream.read().usage.completion_tokens for stream in streams] == [90] * 4
        check_all(llm, requests)


def test_the_context_of_the_draft_model_grows_and_keeps_its_sequences(paths: dict[str, Path], requests: list[Request]):
    with LLM(TINY_CHAT, draft_model=paths["tiny"], **EXACT) as llm, llm.session() as session:
        sizes = set[int]()
        for _ in range(3):
            session(turn("Tell me a long story about a fox."), max_tokens=130, ignore_eos=True)
            sizes.add(llm.stats.draft_n_ctx)
        assert len(sizes) > 1
        check_all(llm, requests)


def test_adapters_have_drafts_of_a_model_without_them(tmp_path: Path, paths: dict[str, Path]):
    with LLM(paths["noise"], draft_model=paths["noise"], **ALONE) as llm:
        llm.load_lora("more noise", write_random_adapter(tmp_path / "adapter", paths["noise"], 2))
        for seed in range(3):
            drafted = both_ways(llm, IDS * 2, seed=seed, max_tokens=60, lora={"more noise": 1.0}, logprobs=0)
            assert drafted.timings.tokens_drafted > 0


def test_a_draft_model_is_not_asked_about_images_which_it_does_not_see(tmp_path: Path):
    projector = str(write_projector(tmp_path / "mmproj.gguf"))
    parts = [{"type": "image", "image": png("red")}, {"type": "text", "text": "What is this?"}]
    messages = [{"role": "user", "content": parts}]
    options: dict[str, Any] = {"max_tokens": 40, "ignore_eos": True, "temperature": 0}
    with LLM(TINY_CHAT, projector=projector, draft_model=TINY_CHAT, **ALONE) as llm:
        off, *drafted = (llm.chat(messages, speculation=how, **options) for how in ("off", "draft", "lookup"))
        assert [each.text for each in drafted] == [off.text] * 2
        assert llm.stats.draft_steps == 0


# --- ends


def test_drafts_of_a_reader_who_leaves_are_dropped(tiny: LLM):
    options: dict[str, Any] = {"max_tokens": 60, "temperature": 0}
    expected = tiny(turn("Write fox fox fox."), speculation="off", **options)
    for n in range(1, 6):
        stream = tiny(turn("Write fox fox fox."), stream=True, **options)
        text = "".join(next(stream) for _ in range(n))
        stream.cancel()
        text += "".join(stream)
        assert expected.startswith(text)
    assert owners(tiny) == []
    assert tiny(turn("Write fox fox fox."), **options) == expected


@pytest.mark.parametrize("is_decoding", [False, True])
def test_a_reader_who_leaves_while_the_draft_model_works(tiny: LLM, is_decoding: bool, monkeypatch: pytest.MonkeyPatch):
    options: dict[str, Any] = {"max_tokens": 60, "temperature": 0, "ignore_eos": True}
    expected = tiny(turn("Write fox fox fox."), speculation="off", **options)
    decode = DraftContext._decode
    with held(tiny):
        stream = tiny(turn("Write fox fox fox."), stream=True, **options)

        def leaving(self: DraftContext, sequences: Any) -> Any:
            may_decode = self._may_decode
            if not is_decoding:
                stream.cancel()

            def then_leave(context: Any) -> bool:
                answer = may_decode(context)
                stream.cancel()
                return answer

            monkeypatch.setattr(self, "_may_decode", then_leave)
            return decode(self, sequences)

        monkeypatch.setattr(DraftContext, "_decode", leaving)
    assert stream.read().finish_reason == "cancelled"
    monkeypatch.undo()
    assert owners(tiny) == []
    engine_of(tiny).check_integrity()
    tiny.close()
    assert tiny(turn("Write fox fox fox."), **options) == expected


def test_close_releases_the_context_of_the_draft_model(tiny: LLM):
    options: dict[str, Any] = {"max_tokens": 40, "temperature": 0, "ignore_eos": True}
    first = tiny(turn("Hello"), **options)
    assert tiny.stats.draft_n_ctx > 0 < sum(tiny.stats.draft_bytes.values())
    tiny.close()
    assert (tiny.stats.draft_n_ctx, tiny.stats.draft_bytes) == (0, {})
    stream = tiny(turn("Hello"), stream=True, **ENDLESS)
    next(stream)
    tiny.close()
    assert stream.read().finish_reason == "cancelled"
    assert tiny(turn("Hello"), **options) == first


# --- a loaded LLM as a draft model


def test_one_llm_drafts_for_two_others_and_may_be_closed(paths: dict[str, Path]):
    options: dict[str, Any] = {"max_tokens": 60, "temperature": 0}
    with LLM(TINY_CHAT, **ALONE) as draft:
        expected = draft(turn("Write fox fox fox."), **options)
        one, two = LLM(TINY_CHAT, draft_model=draft, **ALONE), LLM(TINY_CHAT, draft_model=draft, **ALONE)
        assert one.model_config.draft_model == draft.model_path
        answers = in_threads(
            [lambda llm=llm: llm(turn("Write fox fox fox."), **options) for llm in (one, two, draft) * 2]
        )
        assert answers == [expected] * 6
    stream = one(turn("Write fox fox fox."), stream=True, **options)
    text = next(stream)
    draft.close()
    del draft
    gc.collect()
    assert text + "".join(stream) == expected
    assert two(turn("Write fox fox fox."), **options).timings.tokens_accepted > 0
    one.close()
    two.close()


def test_a_draft_model_that_is_freed_is_left_out(caplog: pytest.LogCaptureFixture):
    options: dict[str, Any] = {"max_tokens": 60, "temperature": 0}
    draft = LLM(TINY_CHAT, **ALONE)
    with LLM(TINY_CHAT, draft_model=draft, **ALONE) as llm:
        expected = llm(turn("Write fox fox fox."), **options)
        assert expected.timings.tokens_accepted > 0
        draft.model.close()
        with caplog.at_level(logging.WARNING, "cyllama"):
            assert llm(turn("Write fox fox fox."), **options) == expected
        assert "the draft model failed, and is left out for 32 steps" in caplog.text


def test_without_memory_for_the_draft_model_answers_come_without_drafts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*arguments: object) -> None:
        raise ContextMemoryError("no memory here")

    with LLM(TINY_CHAT, draft_model=TINY_CHAT, **ALONE) as llm:
        monkeypatch.setattr(draft_context, "check_kv_memory", refuse)
        with caplog.at_level(logging.WARNING, "cyllama"):
            response = both_ways(llm, turn("Write fox fox fox."), temperature=0, max_tokens=60)
        assert response.timings.tokens_drafted == 0
        assert "no memory here" in caplog.text
        monkeypatch.undo()
        for _ in range(3):
            response = both_ways(llm, turn("Write fox fox fox."), temperature=0, max_tokens=90, ignore_eos=True)
        assert response.timings.tokens_drafted > 0


# --- models that cannot draft


def test_another_vocabulary_is_refused_with_its_first_difference(tmp_path: Path):
    path = write_random_model(tmp_path / "spm.gguf", "llama", sentencepiece=True, name="other words")
    with pytest.raises(
        ConfigError, match=r"draft_model 'other words' has another vocabulary than .*: the type is 'SPM'"
    ):
        LLM(TINY_CHAT, draft_model=path)


def change_metadata(source: Path, path: Path, key: str, change: Callable[[Any], Any]) -> Path:
    """Write a model with another value of a key."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            value = change(field.contents()) if name == key else field.contents()
            kind = field.types[0]
            item = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, value, kind, sub_type=item)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("key", "change", "difference"),
    [
        ("tokens", lambda words: [*words[:700], "zzzz", *words[701:]], "token 700 is 'zzzz' instead of"),
        ("add_bos_token", lambda adds: not adds, "add_bos is"),
    ],
)
def test_what_differs_is_named(key: str, change: Callable[[Any], Any], difference: str, tmp_path: Path):
    path = change_metadata(TINY_CHAT, tmp_path / "changed.gguf", f"tokenizer.ggml.{key}", change)
    with pytest.raises(ConfigError, match=difference):
        LLM(TINY_CHAT, draft_model=path)


def test_the_first_tokens_need_not_be_the_same(tmp_path: Path):
    path = change_metadata(
        TINY_CHAT, tmp_path / "changed.gguf", "tokenizer.ggml.tokens", lambda words: ["zzzz", *words[1:]]
    )
    with LLM(TINY_CHAT, draft_model=path, **ALONE) as llm:
        assert both_ways(llm, turn("Write fox fox fox."), max_tokens=40, seed=1).timings.tokens_drafted > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_an_llm_of_a_parent_process_does_not_draft_in_a_child():
    draft = LLM(TINY_CHAT, n_threads=1)
    pid = os.fork()
    if pid == 0:
        try:
            LLM(TINY_CHAT, n_threads=1, draft_model=draft)
        except ForkedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("kind", [*RECURRENT[:1], *HYBRID[:1]])
@pytest.mark.parametrize("is_draft", [True, False])
def test_memories_that_cannot_drop_drafts_say_so_and_answer(kind: str, is_draft: bool, tmp_path: Path):
    path = write_random_model(tmp_path / kind, kind)
    model, draft = (TINY_CHAT, path) if is_draft else (path, TINY_CHAT)
    if is_draft:
        with pytest.warns(
            UserWarning, match=f"draft_model has no effect: random-{kind} has recurrent states"
        ) as caught:
            llm = LLM(model, draft_model=draft, temperature=0, n_threads=1)
        assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    else:
        llm = LLM(model, draft_model=draft, temperature=0, n_threads=1)
    with llm:
        assert llm.config.speculation == "off"
        with pytest.warns(UserWarning, match=f"speculation='draft' has no effect: random-{kind} has recurrent states"):
            response = llm(IDS * 2, max_tokens=20, speculation="draft")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert llm(IDS * 2, max_tokens=20) == response


@pytest.mark.model
class TestSmolLM2:
    """A real model, and another one of its vocabulary."""

    pytestmark = needs("smollm2")

    def test_it_answers_the_same_with_drafts(self, requests: list[Request]):
        path = path_of("smollm2")
        with LLM(path, draft_model=path, n_parallel=2, **EXACT) as llm:
            questions = [[{"role": "user", "content": text}] for text in ("What is a fox?", "Count to ten.")]
            in_threads([lambda q=q: llm.chat(q, max_tokens=40) for q in questions])
            assert llm.stats.model_tokens_accepted > 0.4 * llm.stats.model_tokens_drafted > 0
            check_all(llm, requests)
