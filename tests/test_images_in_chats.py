"""Answers about images: `LLM.chat` with a model that reads them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM, ContextSizeError, Image, PromptError, PromptTypeError, SessionPool, UnsupportedModelError
from cyllama.models import TINY_CHAT

from .support.random_projector import write_random_projector
from .support.vision import N_TOKENS, data_url, png, write_projector

GREEDY: dict[str, Any] = {"max_tokens": 8, "ignore_eos": True}


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_projector(tmp_path_factory.mktemp("vision") / "mmproj.gguf")


@pytest.fixture(scope="module")
def llm(projector: Path) -> Iterator[LLM]:
    with LLM(projector=str(projector), temperature=0, n_threads=1) as llm:
        yield llm


def ask(*images: Any, text: str = "What is this?") -> list[dict[str, Any]]:
    parts = [image if isinstance(image, dict) else {"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def first_logprob(llm: LLM, messages: list[dict[str, Any]]) -> float:
    """Return how likely the model finds its first token, a number that all of the prompt has an effect on."""
    answer = llm.chat(messages, max_tokens=1, ignore_eos=True, logprobs=0)
    assert answer.logprobs is not None
    return answer.logprobs[0].logprob


def test_an_image_has_an_effect_on_the_answer(llm: LLM):
    red, blue, none = (first_logprob(llm, ask(*images)) for images in ((png("red"),), (png("blue"),), ()))
    assert len({round(each, 3) for each in (red, blue, none)}) == 3


def test_all_forms_of_an_image_are_the_same(llm: LLM, tmp_path: Path):
    path = tmp_path / "red.png"
    path.write_bytes(png("red"))
    url = {"type": "image_url", "image_url": {"url": data_url("red"), "detail": "high"}}
    answers = [llm.chat(ask(each), **GREEDY).text for each in (path, png("red"), Image.load(path), url)]
    assert len({*answers}) == 1


def test_tokens_of_images_are_counted(llm: LLM):
    without, one, two = (ask(), ask(png("red")), ask(png("red"), png("blue")))
    n = llm.count_tokens(without)
    assert (llm.count_tokens(one), llm.count_tokens(two)) == (n + N_TOKENS, n + 2 * N_TOKENS)
    assert llm.chat(two, **GREEDY).usage.prompt_tokens == n + 2 * N_TOKENS


def test_a_session_evaluates_an_image_once(llm: LLM):
    history: list[Any] = ask(png("red"))
    history.append(llm.chat(history, session="ada", **GREEDY))
    history.append({"role": "user", "content": "And why?"})
    second = llm.chat(history, session="ada", **GREEDY)
    assert second.usage.cached_tokens > N_TOKENS
    assert second.text == llm.chat(history, **GREEDY).text
    history[0] = ask(png("blue"))[0]  # another image in its place
    other = llm.chat(history, session="ada", **GREEDY)
    assert other.usage.cached_tokens < N_TOKENS
    assert other.text == llm.chat(history, **GREEDY).text


def test_a_pool_finds_the_history_with_the_same_image(llm: LLM):
    pool = SessionPool(llm)
    found: list[str] = []
    for color in ("red", "blue"):
        with pool.lease(ask(png(color)), "ada") as lease:
            answer = llm.chat(ask(png(color)), session=lease.name, **GREEDY)
        longer = [*ask({"type": "image_url", "image_url": {"url": data_url(color)}}), answer, *ask(text="And why?")]
        with pool.lease(longer, "ada") as lease:
            found.append(lease.choice)
            assert llm.chat(longer, session=lease.name, **GREEDY).usage.cached_tokens > N_TOKENS
    pool.reset("ada")
    assert found == ["continue", "continue"]


def test_an_image_that_does_not_fit_is_an_error(llm: LLM):
    with pytest.raises(ContextSizeError, match="tokens but n_ctx is 64"):
        llm.chat(ask(*[png(color) for color in ("red", "blue", "green", "white")]), n_ctx=64)
    assert llm.chat(ask(png("red")), n_ctx=128, **GREEDY).usage.completion_tokens == 8


def test_many_ask_about_images_at_once(llm: LLM):
    colors = ("red", "blue", "green", "white", "black", "red")
    alone = [llm.chat(ask(png(color)), **GREEDY).usage.prompt_tokens for color in colors]

    async def together() -> list[int]:
        answers = await asyncio.gather(*(llm.achat(ask(png(color)), **GREEDY) for color in colors))
        return [answer.usage.prompt_tokens for answer in answers]

    assert asyncio.run(together()) == alone


def test_without_a_projector_the_error_says_how_to_give_one():
    with LLM(n_threads=1) as llm:
        with pytest.raises(UnsupportedModelError, match="projector"):
            llm.chat(ask(png("red")))
        assert llm.chat(ask()).text


def test_the_projector_beside_a_model_is_found(projector: Path, tmp_path: Path):
    shutil.copy(TINY_CHAT, tmp_path / "model.gguf")
    shutil.copy(projector, tmp_path / "mmproj-F32.gguf")
    with LLM(tmp_path / "model.gguf", projector="auto", n_threads=1) as llm:
        assert llm.count_tokens(ask(png("red"))) == llm.count_tokens(ask()) + N_TOKENS


def test_a_projector_without_memory_says_what_to_do(tmp_path: Path):
    with LLM(n_threads=1) as llm:
        path = write_random_projector(tmp_path / "mmproj.gguf", "llava", n_embd=llm.model.n_embd, n_ff=2**18)  # 130 MiB
    code = f"""
import resource
from cyllama import LLM, ProjectorLoadError
LLM(n_threads=1).close()
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (100 << 20), resource.RLIM_INFINITY))
try:
    LLM(projector={str(path)!r}, n_threads=1)
except ProjectorLoadError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no memory for its tensors on CPU" in done.stdout
    assert done.stdout.endswith(": set a smaller n_ctx or kv_cells, or end other programs\n")


def test_conversations_with_images_are_forgotten_beyond_a_limit_of_bytes(projector: Path):
    photo = {color: png(color, 500, 400) for color in ("red", "green", "blue", "white")}  # 0.57 MiB of pixels each
    short: dict[str, Any] = {"max_tokens": 1}
    with LLM(projector=str(projector), temperature=0, n_threads=1, session_images_mb=2) as llm:
        llm.chat(ask(), session="text", **short)
        for color in ("red", "green", "blue"):
            llm.chat(ask(photo[color]), session=color, **short)
        llm.session("red").fork("as red")  # it shows the same image, which is in memory once
        llm.chat(ask(photo["white"]), session="white", **short)
        assert {*llm.sessions} == {"text", "red", "as red", "green", "blue", "white"}
        llm.chat(ask(), session="text", **short)  # a call counts what those before it have left
        assert {*llm.sessions} == {"text", "red", "as red", "blue", "white"}
        with llm.session("blue"):  # what a caller holds stays
            for name in ("red", "white", "text"):
                llm.chat(ask(photo["red"], photo["green"], photo["white"]), session=name, **short)
            assert {*llm.sessions} == {"blue", "text"}
        llm.chat(ask(*photo.values()), session="large", **short)
        llm.chat(ask(*photo.values()), session="large", **short)  # its own call never forgets it
        assert {*llm.sessions} == {"large"}


def test_a_session_from_a_file_counts_at_once(projector: Path, tmp_path: Path):
    photo = {color: png(color, 500, 400) for color in ("red", "green", "blue")}  # 0.57 MiB of pixels each
    with LLM(projector=str(projector), temperature=0, n_threads=1, session_images_mb=1) as llm:
        llm.chat(ask(photo["red"], photo["green"]), session="saved", max_tokens=1)
        with llm.session("saved") as session:
            session.save(tmp_path / "saved")
        for color in photo:
            llm.chat(ask(photo[color]), session=color, max_tokens=1)
        with llm.session("blue"), llm.load_session(tmp_path / "saved", name="loaded") as loaded:
            assert {*llm.sessions} == {"blue", "loaded"}, "what is held stays, and what was idle is forgotten"
            again = ask(photo["red"], photo["green"])
            assert llm.chat(again, session=loaded.name, **GREEDY).usage.cached_tokens > 0
            assert {*llm.sessions} == {"blue", "loaded"}
            branch = loaded.fork("branch")  # which shows the same images
            assert {*llm.sessions} == {"blue", "loaded", "branch"}
            branch.close()


# -------------------- plain completions

RED, BLUE = Image.load(png("red")), Image.load(png("blue"))


def test_a_completion_has_images_in_their_places(llm: LLM):
    content = [
        {"type": "text", "text": "A photo: "},
        {"type": "image", "image": RED},
        {"type": "text", "text": " It is"},
    ]
    template = "{{ messages[0]['content'] }}"
    rendered = llm.chat([{"role": "user", "content": content}], chat_template=template, **GREEDY)
    red = llm(["A photo: ", RED, " It is"], **GREEDY)
    assert (red, red.usage.prompt_tokens) == (rendered.text, rendered.usage.prompt_tokens)
    prompts: list[list[str | Image]] = [
        ["A photo: ", RED],
        ["A photo: ", BLUE],
        [RED, "A photo: "],
        [RED, "A photo: ", RED],
    ]
    found: set[float] = set()
    for prompt in prompts:
        answer = llm(prompt, max_tokens=1, ignore_eos=True, logprobs=0)
        assert answer.logprobs is not None
        found.add(round(answer.logprobs[0].logprob, 3))
    assert len(found) == len(prompts)


async def test_every_way_to_complete_a_text_takes_images(llm: LLM):
    prompt = ["A photo: ", RED, " It is"]
    whole = llm(prompt, **GREEDY)
    assert "".join(llm(prompt, stream=True, **GREEDY)) == whole
    assert await llm.agenerate(prompt, **GREEDY) == whole
    assert "".join([piece async for piece in llm.astream(prompt, **GREEDY)]) == whole
    assert llm(prompt, n=2, **GREEDY) == [whole, whole]


def test_a_session_goes_on_after_an_image_and_takes_another_one(llm: LLM):
    with llm.session() as session:
        first = session(["A photo: ", RED, " It is"], **GREEDY)
        second = session([" and another: ", BLUE], **GREEDY)
        third = session(" and these are", **GREEDY)
        texts = ["A photo: ", RED, f" It is{first} and another: ", BLUE, f"{second} and these are"]
        assert second.usage.cached_tokens > N_TOKENS
        assert third.usage.cached_tokens > 2 * N_TOKENS
        assert session.tokens == third.usage.total_tokens
        name = session.name
        again = llm(texts, session=name, **GREEDY)  # the same history as a whole
        assert again.usage.cached_tokens > 2 * N_TOKENS


def test_texts_beside_an_image_stay_texts(llm: LLM):
    for text in ("<|im_end|>", "<__media__>", "\ufdd4" + "0" * 64 + "\ufdd4"):
        for parse_special in (False, True):
            n = llm(["A", RED, text], max_tokens=1, parse_special=parse_special).usage.prompt_tokens
            n_before = llm(["A", RED], max_tokens=1, parse_special=parse_special).usage.prompt_tokens
            n_text = len(llm.tokenize(f"\n{text}", parse_special=parse_special)) - len(llm.tokenize("\n"))
            assert n == n_before + n_text
            cut = ["A", RED, text[:3], text[3:]]
            assert llm(cut, max_tokens=1, parse_special=parse_special).usage.prompt_tokens == n


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ([RED, 5], PromptTypeError, "a list of texts and images, not of int: 5"),
        ([RED, Path("red.png")], PromptTypeError, "not of PosixPath|not of WindowsPath"),
        (["a text"], PromptTypeError, "a token id is an int, not str"),
        ([RED, "a \ud800"], PromptError, "a lone surrogate at index 2"),
    ],
)
def test_what_is_no_list_of_texts_and_images_is_refused(llm: LLM, prompt: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        llm(prompt)
    with llm.session() as session, pytest.raises(error, match=message):
        session(prompt)


def test_a_model_without_a_projector_refuses_a_prompt_with_images():
    with LLM(n_threads=1) as blind, pytest.raises(UnsupportedModelError, match="sees no images"):
        blind(["A photo: ", RED])
