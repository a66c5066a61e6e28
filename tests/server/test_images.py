"""Images in requests: by the official clients to a real server whose model reads them."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import anthropic
import openai
import PIL.Image
import pytest

from cyllama import LLM, Image, SessionPool
from cyllama.models import TINY_CHAT
from cyllama_server.activity import Activity
from cyllama_server.images import ImageReader
from cyllama_server.models import LoadedModel
from cyllama_server.sessions import KnownSessions

from ..support.malformed import KINDS
from ..support.server import ServerProcess
from ..support.vision import N_TOKENS, base64_of, data_url, png, write_projector

CHAT = "/v1/chat/completions"
QUESTION = "What is this?"
OPTIONS: dict[str, Any] = {"model": "eyes", "temperature": 0, "max_tokens": 8}


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with one model that reads images, and one that does not."""
    projector = write_projector(tmp_path_factory.mktemp("vision") / "mmproj.gguf")
    models = ("--model", f"eyes={TINY_CHAT}", "--model", f"blind={TINY_CHAT}")
    options = ("--option", f"eyes.projector={projector}", "--max-image-mp", "1")
    with ServerProcess(*models, *options) as server:
        yield server


@pytest.fixture(scope="module")
def gpt(seeing: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=seeing.v1, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(seeing: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=seeing.url, api_key="any", max_retries=0) as client:
        yield client


def image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def asked(*parts: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": QUESTION}, *parts]}]


def block(data: str, kind: str = "image/png") -> Any:
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


# -------------------- OpenAI's chats


def test_a_chat_about_an_image_goes_on(gpt: Any):
    messages = asked(image(data_url("red"), detail="low"))
    first = gpt.chat.completions.create(messages=messages, **OPTIONS)
    without = gpt.chat.completions.create(messages=asked(), **OPTIONS)
    assert first.usage.prompt_tokens == without.usage.prompt_tokens + N_TOKENS
    messages += [
        {"role": "assistant", "content": first.choices[0].message.content or "-"},
        {"role": "user", "content": "Why?"},
    ]
    second = gpt.chat.completions.create(messages=messages, **OPTIONS)
    assert (second.usage.prompt_tokens_details.cached_tokens or 0) > N_TOKENS


def test_the_answer_depends_on_the_pixels(gpt: Any):
    def first_logprob(*parts: dict[str, Any]) -> float:
        answer = gpt.chat.completions.create(messages=asked(*parts), **OPTIONS | {"max_tokens": 1}, logprobs=True)
        logprobs = answer.choices[0].logprobs
        return logprobs.content[0].logprob

    found = [first_logprob(*parts) for parts in ([], [image(data_url("red"))], [image(data_url("blue"))])]
    assert len({round(each, 3) for each in found}) == 3


def test_a_chat_about_an_image_streams(gpt: Any):
    messages = asked(image(data_url("red")))
    whole = gpt.chat.completions.create(messages=messages, **OPTIONS)
    stream = gpt.chat.completions.create(
        messages=messages, **OPTIONS, stream=True, stream_options={"include_usage": True}
    )
    text = ""
    usage: Any = None
    for chunk in stream:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content
    assert usage.prompt_tokens == whole.usage.prompt_tokens


# -------------------- OpenAI's responses


def test_a_response_about_an_image_goes_on(gpt: Any):
    content: Any = [
        {"type": "input_text", "text": QUESTION},
        {"type": "input_image", "image_url": data_url("red"), "detail": "auto"},
    ]
    options: dict[str, Any] = {"model": "eyes", "temperature": 0, "max_output_tokens": 16}
    first = gpt.responses.create(input=[{"role": "user", "content": content}], **options)
    without = gpt.responses.create(input=QUESTION, **options)
    assert first.usage.input_tokens == without.usage.input_tokens + N_TOKENS
    second = gpt.responses.create(input="Why?", previous_response_id=first.id, **options)
    assert second.usage.input_tokens_details.cached_tokens > N_TOKENS


# -------------------- Anthropic's messages


def test_messages_about_an_image_go_on(claude: Any):
    options: dict[str, Any] = {"model": "eyes", "max_tokens": 8, "extra_body": {"temperature": 0}}
    content = [block(base64_of("red")), {"type": "text", "text": QUESTION}]
    messages: list[Any] = [{"role": "user", "content": content}]
    first = claude.messages.create(messages=messages, **options)
    counted = claude.messages.count_tokens(model="eyes", messages=messages).input_tokens
    without = claude.messages.count_tokens(model="eyes", messages=[{"role": "user", "content": QUESTION}]).input_tokens
    assert counted == without + N_TOKENS
    assert first.usage.input_tokens + (first.usage.cache_read_input_tokens or 0) == counted
    said = "".join(each.text for each in first.content if each.type == "text") or "-"
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "Why?"}]
    second = claude.messages.create(messages=messages, **options)
    assert (second.usage.cache_read_input_tokens or 0) > N_TOKENS


def test_the_result_of_a_tool_may_be_an_image(claude: Any):
    tools: Any = [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]

    def n_tokens(result: Any) -> int:
        used = {"type": "tool_use", "id": "one", "name": "look", "input": {}}
        answer = {"type": "tool_result", "tool_use_id": "one", "content": result}
        messages: Any = [
            {"role": "user", "content": "Look!"},
            {"role": "assistant", "content": [used]},
            {"role": "user", "content": [answer]},
        ]
        claude.messages.create(model="eyes", max_tokens=1, messages=messages, tools=tools)
        return claude.messages.count_tokens(model="eyes", messages=messages, tools=tools).input_tokens

    text = {"type": "text", "text": "Seen:"}
    assert n_tokens([text, block(base64_of("red"))]) == n_tokens([text]) + N_TOKENS


async def test_an_image_that_many_conversations_show_is_in_memory_once(tmp_path: Path):
    projector = write_projector(tmp_path / "mmproj.gguf")
    with LLM(projector=str(projector), n_threads=1) as llm:
        model = LoadedModel("eyes", llm, SessionPool(llm), KnownSessions(llm), Activity(), 0)
        reader = ImageReader(1)

        async def read(color: str) -> Image:
            return (await reader.read(asked(image(data_url(color))), model)).messages[0]["content"][1]["image"]

        first, second, other = [await read(color) for color in ("red", "red", "blue")]
        reader.close()
    assert first is second
    assert other.digest != first.digest


# -------------------- what is refused


def png_of_size(width: int, height: int) -> str:
    """A small PNG file of that size, in which no pixels are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


BROKEN = {
    "not base64": "%%%%",
    "not an image": base64.b64encode(b"This is not an image.").decode(),
    "cut off": base64_of("red")[:64],
    "too many pixels": png_of_size(2000, 2000),
    "a bomb": png_of_size(30_000, 30_000),
    "empty": "",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_image_is_the_clients_error_in_each_api(data: str, gpt: Any, claude: Any, seeing: ServerProcess):
    url = f"data:image/png;base64,{data}"
    with pytest.raises(openai.BadRequestError, match="the image in part 1 of message 0") as refused:
        gpt.chat.completions.create(messages=asked(image(url)), **OPTIONS)
    assert (refused.value.code, refused.value.param) == ("invalid_image", "messages")
    content: Any = [{"type": "input_image", "image_url": url, "detail": "auto"}]
    with pytest.raises(openai.BadRequestError, match="the image in part 0 of message 0"):
        gpt.responses.create(model="eyes", input=[{"role": "user", "content": content}])
    with pytest.raises(anthropic.BadRequestError, match="the image in part 0 of message 0"):
        claude.messages.create(model="eyes", max_tokens=1, messages=[{"role": "user", "content": [block(data)]}])
    assert "Traceback" not in seeing.log


@pytest.mark.parametrize(
    "url", ["https://example.com/cat.png", "http://127.0.0.1:9/x", "file:///etc/passwd", "/etc/passwd", "cat.png", ""]
)
def test_no_address_is_fetched_and_no_path_is_read(url: str, gpt: Any, claude: Any):
    with pytest.raises(openai.BadRequestError, match="no address is fetched"):
        gpt.chat.completions.create(messages=asked(image(url)), **OPTIONS)
    with pytest.raises(openai.BadRequestError, match="no address is fetched"):
        gpt.chat.completions.create(messages=asked({"type": "image", "image": url}), **OPTIONS)
    source: Any = {"type": "image", "source": {"type": "url", "url": url}}
    with pytest.raises(anthropic.BadRequestError, match="no address is fetched"):
        claude.messages.create(model="eyes", max_tokens=1, messages=[{"role": "user", "content": [source]}])


WRONG: list[dict[str, Any]] = [
    {"type": "image_url"}, {"type": "image_url", "image_url": 5}, {"type": "image_url", "image_url": {}},
    {"type": "image_url", "image_url": {"url": None}}, {"type": "image_url", "image_url": {"url": ["x"]}},
    {"type": "image"}, {"type": "image", "image": {"rgb": "x"}}, {"type": "digest", "digest": "0" * 64},
    image("data:text/plain;base64,aGVsbG8="), image("data:image/png,abc"), image("data:image/svg+xml;base64,PHN2Zy8+"),
]  # fmt: skip


@pytest.mark.parametrize("part", WRONG, ids=range(len(WRONG)))
def test_what_is_no_image_is_refused(part: dict[str, Any], seeing: ServerProcess):
    response = seeing.http.post(CHAT, json={"messages": asked(part), **OPTIONS})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert "Traceback" not in seeing.log


def test_the_images_of_a_request_are_limited_together(gpt: Any):
    large = [image(f"data:image/png;base64,{solid(700, 700, color)}") for color in (0, 1, 2)]
    gpt.chat.completions.create(messages=asked(*large[:2]), **OPTIONS)
    with pytest.raises(openai.BadRequestError, match="the image in part 3 of message 0 has 700 x 700 pixels"):
        gpt.chat.completions.create(messages=asked(*large), **OPTIONS)
    gpt.chat.completions.create(messages=asked(large[0], large[0], large[0]), **OPTIONS)  # it is decoded once


def solid(width: int, height: int, shade: int) -> str:
    buffer = BytesIO()
    PIL.Image.new("RGB", (width, height), (shade, shade, shade)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_an_image_that_the_projector_refuses_is_the_clients_error(gpt: Any):
    wide = base64.b64encode(png("red", 900, 1)).decode()
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="no side is more than 200 times the other") as refused:
            gpt.chat.completions.create(
                messages=asked(image(f"data:image/png;base64,{wide}")), **OPTIONS, stream=stream
            )
        assert refused.value.code == "invalid_image"


def test_malformed_images_break_nothing(seeing: ServerProcess):
    for path, body, _ in list(KINDS["images"]())[::4]:
        response = seeing.http.post(path, content=body, headers={"content-type": "application/json"})
        assert response.status_code in (200, 400), (body[:150], response.text)
    assert "Traceback" not in seeing.log


def test_a_model_without_a_projector_says_so(gpt: Any, claude: Any):
    with pytest.raises(openai.BadRequestError, match=r"'blind' reads no images.*--option blind\.projector=FILE"):
        gpt.chat.completions.create(messages=asked(image(data_url("red"))), **OPTIONS | {"model": "blind"})
    with pytest.raises(anthropic.BadRequestError, match="reads no images"):
        claude.messages.create(
            model="blind", max_tokens=1, messages=[{"role": "user", "content": [block(base64_of("red"))]}]
        )


def test_models_say_whether_they_read_images(seeing: ServerProcess):
    models = {
        each["id"]: each["architecture"]["input_modalities"] for each in seeing.http.get("/v1/models").json()["data"]
    }
    assert models == {"eyes": ["text", "image"], "blind": ["text"]}


def test_images_of_a_request_are_counted_as_their_files_have_them(tmp_path: Path):
    projector = write_projector(tmp_path / "mmproj.gguf")
    options = ("--model", f"eyes={TINY_CHAT}", "--option", f"projector={projector}", "--max-image-mp", "20")
    # 12 megapixels, of which 8 are kept; the second has no pixels, and decoding it would say that it is damaged.
    first, second = base64.b64encode(png("red", 4000, 3000)).decode(), png_of_size(4000, 3000)
    parts = [image(f"data:image/png;base64,{data}") for data in (first, second)]
    with ServerProcess(*options) as server, openai.OpenAI(base_url=server.v1, api_key="any", max_retries=0) as client:
        assert client.chat.completions.create(messages=asked(parts[0]), **OPTIONS).choices
        with pytest.raises(openai.BadRequestError, match=r"part 2 of message 0 has .* at most 8000000 are decoded"):
            client.chat.completions.create(messages=asked(*parts), **OPTIONS)
