"""Images in LangChain's messages: blocks of every provider, and answers about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from cyllama import Image, ImageError, MessageError
from langchain_cyllama import ChatCyllama, UnreadableContentWarning
from langchain_cyllama.messages import to_cyllama

from ..support.vision import N_TOKENS, base64_of, data_url, png, write_projector

RED = Image.load(png("red"))
DATA = base64_of("red")
TEXT = {"type": "text", "text": "What is this?"}

BLOCKS: dict[str, dict[str, Any]] = {
    "v1": {"type": "image", "base64": DATA, "mime_type": "image/png"},
    "v1, a data URL": {"type": "image", "url": data_url("red")},
    "v0": {"type": "image", "source_type": "base64", "data": DATA, "mime_type": "image/png"},
    "OpenAI": {"type": "image_url", "image_url": {"url": data_url("red"), "detail": "high"}},
    "OpenAI, short": {"type": "image_url", "image_url": data_url("red")},
    "OpenAI's responses": {"type": "input_image", "image_url": data_url("red")},
    "Anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
    "Amazon": {"image": {"format": "png", "source": {"bytes": png("red")}}},
    "Google": {"type": "media", "mime_type": "image/png", "data": DATA},
    "an object": {"type": "image", "image": RED},
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_images_of_every_provider_are_read(block: dict[str, Any]):
    content: Any = [TEXT, block]
    part = {"type": "image", "image": RED}
    assert to_cyllama([HumanMessage(content), SystemMessage(content)], images=True) == [
        {"role": "user", "content": [TEXT, part]},
        {"role": "system", "content": [TEXT, part]},
    ]
    result: Any = {"type": "tool_result", "tool_use_id": "one", "content": [block]}
    assert (
        to_cyllama([HumanMessage([result]), ToolMessage([block], tool_call_id="one")], images=True)
        == [{"role": "tool", "content": [part], "tool_call_id": "one"}] * 2
    )
    failed = to_cyllama([ToolMessage([block], tool_call_id="one", status="error")], images=True)
    assert failed[0]["content"] == [{"type": "text", "text": "Error:"}, part]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "url": "https://example.org/cat.png"},
        {"type": "image", "source_type": "url", "url": "https://example.org/cat.png"},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
        {"type": "input_image", "image_url": "file:///etc/passwd"},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.png"}},
    ],
)
def test_an_address_is_refused_with_the_reason(block: dict[str, Any]):
    with pytest.raises(MessageError, match=r"the image in block 1 of message 0 is at '.*', and no address is fetched"):
        to_cyllama([HumanMessage([TEXT, block])], images=True)


def test_a_broken_image_is_an_error():
    with pytest.raises(ImageError, match="the base64 of the image in block 0 of message 0 is broken"):
        to_cyllama([HumanMessage([{"type": "image", "base64": "%%%", "mime_type": "image/png"}])], images=True)


def test_what_a_model_shows_is_left_out():
    history = [AIMessage(["A cat:", BLOCKS["v1"]]), HumanMessage([{"type": "image", "file_id": "file-1"}])]
    with pytest.warns(UnreadableContentWarning, match="text and images: an image in message 0, an image in"):
        to_cyllama(history, images=True)


# -------------------- answers


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatCyllama]:
    projector = write_projector(tmp_path_factory.mktemp("vision") / "mmproj.gguf")
    with ChatCyllama(projector=str(projector), temperature=0, max_tokens=8, n_threads=1) as chat:
        yield chat


def prompt_tokens(message: Any) -> int:
    assert message.usage_metadata is not None
    return message.usage_metadata["input_tokens"]


def test_an_answer_about_an_image(chat: ChatCyllama):
    without = prompt_tokens(chat.invoke([HumanMessage([TEXT])]))
    for block in (BLOCKS["v1"], BLOCKS["OpenAI"]):
        assert prompt_tokens(chat.invoke([HumanMessage([TEXT, block])])) == without + N_TOKENS
    pieces = list(chat.stream([HumanMessage([TEXT, BLOCKS["v1"]])]))
    assert "".join(str(piece.content) for piece in pieces) == chat.invoke([HumanMessage([TEXT, BLOCKS["v1"]])]).content


async def test_a_conversation_about_an_image_evaluates_it_once(chat: ChatCyllama):
    config: Any = {"configurable": {"session_id": "ada"}}
    history: list[Any] = [HumanMessage([TEXT, BLOCKS["v1"]])]
    history.append(await chat.ainvoke(history, config))
    history.append(HumanMessage("Why?"))
    answer: Any = await chat.ainvoke(history, config)
    assert answer.usage_metadata["input_token_details"]["cache_read"] > N_TOKENS


def test_tokens_of_images_are_counted(chat: ChatCyllama):
    one, none = (
        chat.get_num_tokens_from_messages([HumanMessage(list(blocks))]) for blocks in ([TEXT, BLOCKS["v1"]], [TEXT])
    )
    assert one == none + N_TOKENS


def test_its_profile_says_that_it_reads_images(chat: ChatCyllama):
    with ChatCyllama() as blind:
        profiles: list[Any] = [chat.profile, blind.profile]
    assert [profile["image_inputs"] for profile in profiles] == [True, False]
