"""Images in prompts: evaluated as mtmd does it, shared and kept as tokens are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from cyllama import LLM, ConfigError, DecodeError, ImageError, ModelLoadError, SessionFileError, UnsupportedModelError
from cyllama.engine import Request

from ..support.harness import EXACT, held, in_threads
from ..support.random_models import write_random_model
from ..support.random_projector import n_image_tokens, write_random_projector
from ..support.sight import SightReference, late, n_encoded, picture, seen

KINDS = {"llama": "llava", "gemma3": "gemma3", "lfm2": "llava"}  # projectors by architecture
CAT, DOG = picture(1), picture(2)


class Files:
    """A model and its projector."""

    def __init__(self, architecture: str, folder: Path) -> None:
        self.n_tokens = n_image_tokens(KINDS[architecture])
        self.architecture = architecture
        self.model = write_random_model(folder / "model.gguf", architecture, endless=True)
        self.projector = str(write_random_projector(folder / "mmproj.gguf", KINDS[architecture]))

    def load(self, **options: Any) -> LLM:
        """Load the model with its projector."""
        chosen: dict[str, Any] = EXACT | {"max_tokens": 12} | options
        return LLM(self.model, projector=self.projector, **chosen)


@pytest.fixture(scope="module", params=KINDS)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A causal model, one whose images attend in both directions, in windows of 16 tokens, and one with a state."""
    return Files(request.param, tmp_path_factory.mktemp("sight"))


@pytest.fixture
def eyes(files: Files) -> Iterator[LLM]:
    with files.load() as llm:
        yield llm


@pytest.fixture
def check(files: Files, eyes: LLM, requests: list[Request]) -> Iterator[None]:
    """Compare all answers of a test with those of a context that has seen nothing else."""
    yield
    reference = SightReference(eyes, files.projector)
    assert requests
    for each in requests:
        reference.check(each)


# -------------------- answers


@pytest.mark.usefixtures("check")
def test_answers_are_those_of_mtmd(eyes: LLM, files: Files):
    first = eyes(seen("Look: ", CAT, " What is this?"))
    assert first.usage.prompt_tokens > files.n_tokens
    assert eyes(seen("Look: ", DOG, " What is this?")).text != first.text
    assert eyes(seen("Look: ", CAT, " What is this?")).text == first.text
    assert eyes(seen(CAT, DOG, " Compare them.")).text != eyes(seen(DOG, CAT, " Compare them.")).text
    eyes(seen("An image at the end: ", CAT))
    eyes(seen("Twice: ", CAT, " and ", CAT, "."))


@pytest.mark.usefixtures("check")
def test_many_callers_with_and_without_images(eyes: LLM, files: Files):
    with files.load(n_parallel=4) as llm:

        def ask(i: int) -> str:
            image = (CAT, DOG, picture(3))[i % 3]
            prompt = seen(f"Caller {i} sees ", image, " and asks.") if i % 2 else f"Caller {i} sees nothing."
            return llm(prompt).text

        answers = in_threads([lambda i=i: ask(i) for i in range(10)])
        assert len(set(answers)) == 10
        assert n_encoded(llm) == 3


@pytest.mark.usefixtures("check")
def test_a_long_prompt_with_images_grows_the_context(eyes: LLM):
    eyes("Short.", max_tokens=4)
    images = [picture(seed) for seed in range(20, 26)]
    parts = [part for image in images for part in (image, " is followed by a text of a few words, then by ")]
    response = eyes(seen("A gallery: ", *parts, "the end."), max_tokens=300)
    assert response.usage.completion_tokens == 300
    assert eyes.stats.contexts_created > 1


@pytest.mark.usefixtures("check")
def test_continuations_of_one_prompt_share_its_image(eyes: LLM):
    three = eyes(seen("Three times: ", CAT, " go"), n=3)
    assert len({each.text for each in three}) == 1
    assert n_encoded(eyes) == 1


def test_options_that_count_tokens_know_those_of_texts_only(eyes: LLM, files: Files):
    prompt = seen("a b c a b c ", CAT, " a b c a b c a b")
    plain = eyes(prompt, max_tokens=24)
    if files.architecture != "lfm2":  # whose state cannot drop drafts
        assert eyes(prompt, max_tokens=24, speculation="lookup").text == plain.text
    assert eyes(prompt, max_tokens=24, repeat_penalty=1.3, penalty_last_n=-1, dry_multiplier=0.5).text
    known = eyes(prompt, logprobs=2)
    assert known.logprobs is not None
    assert len(known.logprobs) == known.usage.completion_tokens
    assert eyes(prompt, grammar='root ::= "yes" | "no"', max_tokens=40).text in ("yes", "no")
    assert eyes(prompt, stop=[plain.text[2:5]], max_tokens=24).finish_reason == "stop"


# -------------------- what is kept


@pytest.mark.usefixtures("check")
def test_a_conversation_goes_on_after_its_images(eyes: LLM, files: Files):
    ada = eyes.session("ada")
    first = ada(seen("Look at ", CAT, " please"))
    second = ada(" What else?")
    assert second.usage.cached_tokens == first.usage.total_tokens - 1
    third = ada(seen(" And ", DOG, " here?"))
    assert third.usage.cached_tokens == second.usage.total_tokens - 1
    fork = ada.fork()
    assert fork(" One way").usage.cached_tokens == third.usage.total_tokens - 1
    assert ada(" Another way").usage.cached_tokens >= third.usage.total_tokens - 1 - files.n_tokens
    assert n_encoded(eyes) == 2


@pytest.mark.usefixtures("check")
def test_a_history_that_is_sent_again_keeps_its_images(eyes: LLM):
    history = seen("Look at ", CAT, " please")
    first = eyes(history, session="ada")
    second = eyes(seen("Look at ", CAT, f" please{first.text} And now?"), session="ada")
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    other = eyes(seen("Look at ", DOG, f" please{first.text} And now?"), session="ada")
    assert other.usage.cached_tokens < first.usage.prompt_tokens


@pytest.mark.usefixtures("check")
def test_a_chat_goes_on_after_its_images(eyes: LLM):
    content = [{"type": "image", "image": CAT}, {"type": "text", "text": "What is it?"}]
    history: list[Any] = [{"role": "user", "content": content}]
    first = eyes.chat(history, session="ada", max_tokens=8)
    history += [first.message, {"role": "user", "content": [{"type": "image", "image": DOG}]}]
    second = eyes.chat(history, session="ada", max_tokens=8)
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    assert n_encoded(eyes) == 2


@pytest.mark.usefixtures("check")
def test_what_was_dropped_is_evaluated_again_with_its_images(eyes: LLM):
    ada = eyes.session("ada")
    ada(seen("Look at ", CAT, " and ", DOG, "."))
    eyes.close()
    assert ada(" Go on.").usage.cached_tokens == 0
    assert n_encoded(eyes) == 2  # their embeddings were kept


@pytest.mark.usefixtures("check")
def test_conversations_that_evict_each_other(eyes: LLM, files: Files):
    with files.load(kv_cells=256, n_parallel=2, host_cache_mb=0, image_cache_mb=0) as llm:
        sessions = [llm.session(str(i)) for i in range(8)]
        for i, session in enumerate(sessions):
            session(seen(f"This is number {i}: ", picture(30 + i), " and ", picture(40 + i), "."))
        in_threads([lambda s=session: s(" What was it?") for session in sessions])
        assert n_encoded(llm) > 16  # nothing is kept


@pytest.mark.usefixtures("check")
def test_a_prefix_with_an_image_is_shared(eyes: LLM, files: Files):
    start = "This beginning is shared by several questions, which all are about one image: "
    first = eyes(seen(start, CAT, " What color is it?"), prefix_cache="cat")
    second = eyes(seen(start, CAT, " Who made it?"), prefix_cache="cat")
    other = eyes(seen(start, DOG, " Who made it?"), prefix_cache="cat")
    assert first.usage.cached_tokens == 0
    if files.architecture == "llama":  # others go back to checkpoints only, or within their window
        assert second.usage.cached_tokens > other.usage.cached_tokens > 0


def test_tenants_do_not_share_embeddings(eyes: LLM):
    for tenant in ("a", "b", "a"):
        eyes(seen("Look: ", CAT), session=f"{tenant}\x1e{n_encoded(eyes)}")
    assert n_encoded(eyes) == 2


# -------------------- while an image is encoded


def test_others_go_on_while_an_image_is_encoded(files: Files):
    with files.load(n_parallel=2) as llm:
        image = late(70)
        stream = llm(seen("Look: ", image), stream=True)
        assert llm("No image.").usage.completion_tokens == 12
        assert llm(seen("No image after the first turn."), session="ada").usage.completion_tokens == 12
        assert n_encoded(llm) == 0
        image.arrive()
        assert stream.read().usage.completion_tokens == 12


def test_an_image_that_several_send_at_once_is_encoded_once(files: Files):
    with files.load(n_parallel=3) as llm:
        image = late(71)
        streams = [llm(seen(f"Caller {i}: ", image), stream=True) for i in range(3)]
        image.arrive()
        assert len({stream.read().text for stream in streams}) == 3
        assert n_encoded(llm) == 1


def test_a_request_is_cancelled_while_its_image_is_encoded(files: Files):
    with files.load(n_parallel=2) as llm:
        image = late(72)
        stream = llm(seen("Look: ", image), stream=True)
        stream.cancel()
        assert stream.read().finish_reason == "cancelled"
        assert llm("No image.").usage.completion_tokens == 12
        image.arrive()


@pytest.mark.usefixtures("check", "long_quanta")
def test_a_request_whose_image_is_late_gives_its_cells_to_others(eyes: LLM, files: Files):
    with files.load(kv_cells=256, n_parallel=2) as llm:
        image = late(74)
        first = llm("Endless.", max_tokens=None, stream=True)
        next(iter(first))
        stream = llm(seen("Look: ", image, " What is it?"), stream=True, max_tokens=60)
        assert first.read().finish_reason == "length"
        image.arrive()
        assert stream.read().usage.completion_tokens == 60


def test_close_does_not_wait_for_an_image(files: Files):
    with files.load() as llm:
        image = late(73)
        stream = llm(seen("Look: ", image), stream=True)
        llm.close()
        assert stream.read().finish_reason == "cancelled"
        image.arrive()
        assert llm(seen("Look: ", image)).usage.completion_tokens == 12


# -------------------- ends and errors


def test_a_cancelled_request_does_not_wait_for_its_image(eyes: LLM):
    large = [picture(seed, 1500, 1500) for seed in range(50, 54)]
    with held(eyes):
        streams = [eyes(seen("Look: ", image), stream=True) for image in large]
        last = eyes(seen("Look: ", CAT), stream=True)
        for stream in streams:
            stream.cancel()
    assert last.read().usage.completion_tokens == 12
    assert {stream.read().finish_reason for stream in streams} == {"cancelled"}


def test_close_ends_requests_that_wait_for_images(eyes: LLM):
    streams = [eyes(seen("Look: ", picture(seed, 1500, 1500)), stream=True) for seed in range(60, 64)]
    eyes.close()
    assert {stream.read().finish_reason for stream in streams} <= {"cancelled", "length"}
    assert eyes(seen("Look: ", CAT)).text


def test_an_image_that_cannot_be_encoded_ends_its_request_only(files: Files, tmp_path: Path):
    path = shutil.copy(files.projector, tmp_path / "mmproj.gguf")
    reader = gguf.GGUFReader(path, "r+")
    next(tensor for tensor in reader.tensors if tensor.name == "v.patch_embd.weight").data[:] = np.nan
    del reader
    with LLM(files.model, projector=path, n_parallel=2, max_tokens=12, **EXACT) as llm:
        stream = llm("No image.", stream=True)
        with pytest.raises(DecodeError, match="not finite numbers: the projector is damaged"):
            llm(seen("Look: ", CAT))
        assert stream.read().usage.completion_tokens == 12
        assert llm("No image.").usage.completion_tokens == 12


def test_a_model_without_a_projector_says_how_to_give_it_one(files: Files):
    with LLM(files.model) as llm, pytest.raises(UnsupportedModelError, match=r"projector='mmproj.gguf'"):
        llm(seen("Look: ", CAT))


def test_projectors_that_cannot_be_loaded(files: Files, tmp_path: Path):
    for path in (tmp_path / "missing.gguf", tmp_path, files.model):
        with pytest.raises(ModelLoadError, match="projector"):
            LLM(files.model, projector=str(path))
    with pytest.raises(ConfigError):
        LLM(files.model, projector="")


def test_images_that_a_projector_cannot_take(eyes: LLM, files: Files):
    with pytest.raises(ImageError, match="no side is more than 200 times the other"):
        eyes(seen(picture(0, 201, 1)))
    with files.load(n_ubatch=2) as llm:
        if files.n_tokens == 4:  # of Gemma 3
            with pytest.raises(ImageError, match="n_ubatch is 2: raise n_ubatch in ModelConfig to 4 at least"):
                llm(seen(CAT))
        else:
            assert llm(seen(CAT)).text


@pytest.mark.usefixtures("check")
def test_a_session_with_images_in_a_file(eyes: LLM, files: Files, tmp_path: Path):
    ada = eyes.session("ada")
    ada(seen("Look: ", CAT, " and ", DOG, " and ", CAT))
    ada.save(tmp_path / "ada.session")
    expected = ada(" Go on.")
    with files.load() as other:
        loaded = other.load_session(tmp_path / "ada.session")
        answer = loaded(" Go on.")
        assert (answer.text, answer.usage) == (expected.text, expected.usage)
        assert n_encoded(other) == 0
        other.close()
        assert loaded(" And on.").usage.cached_tokens == 0
        assert n_encoded(other) == 2
    with LLM(files.model) as blind, pytest.raises(SessionFileError, match="has images: load"):
        blind.load_session(tmp_path / "ada.session")
