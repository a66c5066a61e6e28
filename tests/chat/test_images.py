"""Images in messages: their places in a prompt, and texts that look like such a place."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyllama import ChatTemplateError, Image, ImageError, Message, MessageError
from cyllama.chat import ChatTemplates, as_mapping, check_messages
from cyllama.control_text import IMAGE_MARK, RenderedChat
from cyllama.session_choice import read_history

from ..support.families import FAMILIES, GEMMA, MISTRAL, TOOLS

RED, BLUE = (Image(bytes(color * 4), 2, 2) for color in ((255, 0, 0), (0, 0, 255)))
TYPED_ONLY = (
    "{%- for message in messages -%}[{{ message.role }}]{%- for part in message.content -%}"
    "{%- if part.type == 'text' -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endfor -%}"
)


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def image(value: Any) -> dict[str, Any]:
    return {"type": "image", "image": value}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def pieces(prompt: str) -> list[str | Image]:
    """Return the texts and images of a prompt, in their order."""
    assert isinstance(prompt, RenderedChat)
    parts = re.split(f"{IMAGE_MARK}([0-9a-f]{{64}}){IMAGE_MARK}", prompt.marked)
    return [prompt.images[part] if i % 2 else part for i, part in enumerate(parts)]


def images(prompt: str) -> list[Image]:
    return [piece for piece in pieces(prompt) if isinstance(piece, Image)]


# -------------------- places


def test_texts_and_images_keep_their_order(templates: ChatTemplates):
    prompt = templates.render(
        [user(text("Compare"), image(RED), text("with"), image(BLUE), text("now"), text("please"))]
    )
    begin, *middle, end = pieces(prompt)
    assert middle == [RED, "with", BLUE]
    assert str(begin).endswith("Compare")
    assert str(end).startswith("now\nplease")
    assert "Compare<__media__>with<__media__>now\nplease" in prompt
    assert pieces(templates.prepare([user(image(RED))]).prompt) == pieces(templates.render([user(image(RED))]))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_template_takes_images(family: Any, templates: ChatTemplates):
    history = [
        {"role": "system", "content": "Be brief."},
        user(text("What is this?"), image(RED)),
        {"role": "assistant", "content": "Red."},
        user(image(BLUE), text("And this?")),
    ]
    prompt = templates.render(history, chat_template=family.template)
    assert images(prompt) == [RED, BLUE]
    assert str(prompt).index("What is this?") < str(prompt).index("<__media__>") < str(prompt).index("And this?")
    without = [{**message, "content": as_text(message["content"])} for message in history]
    assert str(prompt) == str(templates.render(without, chat_template=family.template))


def as_text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "".join("<__media__>" if part["type"] == "image" else part["text"] for part in content)


def test_a_template_that_takes_only_parts_gets_them(templates: ChatTemplates):
    prompt = templates.render([user(text("See"), image(RED), text("!"))], chat_template=TYPED_ONLY)
    assert pieces(prompt) == ["[user]See", RED, "!"]


def test_the_result_of_a_tool_may_have_an_image(templates: ChatTemplates):
    call = {"id": "123456789", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    history = [
        user(text("Draw!")),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "123456789", "content": [text("Drawn:"), image(RED)]},
    ]
    for template in (None, MISTRAL.template, GEMMA.template):
        assert images(templates.render(history, tools=TOOLS, chat_template=template)) == [RED]


def test_an_answer_may_be_continued_after_an_image(templates: ChatTemplates):
    history = [user(image(RED), text("Which color?")), {"role": "assistant", "content": "It is"}]
    plan = templates.prepare(history)
    assert plan.prompt.endswith("It is")
    assert images(plan.prompt) == [RED]
    assert plan.prefill == "It is"


def test_the_same_image_may_be_shown_twice(templates: ChatTemplates):
    prompt = templates.render([user(image(RED), image(BLUE), image(RED))])
    assert images(prompt) == [RED, BLUE, RED]
    assert len(prompt.images) == 2
    assert images(pickle.loads(pickle.dumps(prompt))) == [RED, BLUE, RED]


def test_two_renderings_of_a_history_are_the_same(templates: ChatTemplates):
    first, second = (templates.render([user(image(RED), text("?"))]) for _ in range(2))
    assert (first, first.marked) == (second, second.marked)


def test_a_template_that_leaves_out_an_image_is_an_error(templates: ChatTemplates):
    with pytest.raises(ChatTemplateError, match="leaves out the image of message 1: put it into another message"):
        templates.render(
            [user(text("Hi")), user(image(RED))], chat_template="{{ messages[0].content }}{{ messages | length }}"
        )


# -------------------- texts that look like places


@pytest.mark.parametrize(
    "said",
    [
        "<__media__>",
        f"{IMAGE_MARK}{RED.digest}{IMAGE_MARK}",
        f"{IMAGE_MARK}{BLUE.digest}{IMAGE_MARK}",
        f"\ufdd1\ufdd5{RED.digest}\ufdd1\ufdd5",
        f"\\ufdd4{RED.digest}\\ufdd4",
        "cyllamaimage" + 32 * "0" + "n0x",
        IMAGE_MARK,
        "<start_of_image><|image_pad|>[IMG]",
    ],
)
def test_what_looks_like_an_image_stays_text(said: str, templates: ChatTemplates):
    for template in (None, "{{ messages | tojson }}", "{{ messages | tojson(ensure_ascii=true) }}"):
        alone = templates.render([user(text(said))], chat_template=template)
        assert (images(alone), alone.images) == ([], {})
        beside = templates.render([user(text(said), image(RED), text(said))], chat_template=template)
        assert images(beside) == [RED]
    assert templates.control_text.plain(templates.render([user(text(said))]).marked).count(said) == 1


def test_any_texts_around_images_stay_what_they_are(templates: ChatTemplates):
    @given(st.lists(st.text(alphabet=f"{IMAGE_MARK}\ufdd0\ufdd1\ufdd5a\\u<_media>0") | st.just(None), max_size=6))
    def stay(said: list[str | None]) -> None:
        parts = [image(RED) if each is None else text(f"({each})") for each in said]
        prompt = templates.render([user(text("."), *parts)], chat_template="{{ messages[0].content }}")
        plain = templates.control_text.plain
        found = ["\x00" if isinstance(piece, Image) else plain(piece) for piece in pieces(prompt)]
        expected, beside_image = ".", False
        for each in said:
            expected += "\x00" if each is None else f"({each})" if beside_image else f"\n({each})"
            beside_image = each is None
        assert "".join(found) == expected

    stay()


# -------------------- messages


def test_an_image_may_be_a_path_bytes_a_data_url_or_one_of_pillow(tmp_path: Path):
    path = tmp_path / "red.png"
    PIL.Image.new("RGB", (2, 2), "red").save(path)
    url = RED.to_data_url()
    forms: list[dict[str, Any]] = [image(each) for each in (RED, path, path.read_bytes(), url)]
    forms += [image(PIL.Image.open(path)), {"type": "image_url", "image_url": url}]
    forms += [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    for part in forms:
        [message] = check_messages([user(text("See"), part)])
        assert message["content"] == [text("See"), image(RED)]


def test_an_address_is_not_a_path(tmp_path: Path):
    path = tmp_path / "red.png"
    PIL.Image.new("RGB", (2, 2), "red").save(path)
    for url in (str(path), f"file://{path}", "https://example.com/red.png"):
        with pytest.raises(ImageError, match=r"the image in part 0 of message 0 is at '.*', and no address is fetched"):
            check_messages([user({"type": "image_url", "image_url": {"url": url}})])
        with pytest.raises(ImageError, match=r"texts of messages are not used as paths: pass Path\(\.\.\.\)"):
            check_messages([user(image(url))])


def test_a_message_has_its_images():
    message = Message(role="user", content=[text("See"), image(RED), text("this")])
    assert (message.content, message.images) == ("See\nthis", [RED])
    assert Message(role="user", content=[text("See")]).images == []
    as_dict = json.loads(json.dumps(message.to_dict()))
    assert as_dict["content"][1] == {"type": "image_url", "image_url": {"url": RED.to_data_url()}}
    assert Message.from_dict(as_dict) == message
    assert Message(role="user", content=[text("See"), image(BLUE), text("this")]) != message
    assert check_messages([message]) == check_messages([as_dict])
    assert pickle.loads(pickle.dumps(message)) == message


def test_an_assistant_shows_no_image():
    with pytest.raises(MessageError, match="message 1 has an image, which only a user, a tool or the system shows"):
        check_messages([user(text("Hi")), {"role": "assistant", "content": [image(RED)]}])


# -------------------- histories


def test_histories_are_compared_by_the_pixels_of_their_images(tmp_path: Path):
    path = tmp_path / "red.png"
    PIL.Image.new("RGB", (2, 2), "red").save(path)
    same = [
        image(RED),
        image(path),
        image(PIL.Image.open(path)),
        {"type": "image_url", "image_url": {"url": RED.to_data_url()}},
    ]
    histories = [read_history([user(part, text("?"))], {})[0] for part in same]
    histories.append(read_history([Message(role="user", content=[image(RED), text("?")])], {})[0])
    assert len({*histories}) == 1
    others = [image(BLUE), image(tmp_path / "missing.png"), {"type": "image_url", "image_url": {"url": "x"}}]
    histories += [read_history([user(part, text("?"))], {})[0] for part in others]
    assert len({*histories}) == 4


def test_a_message_and_its_dict_are_one_history():
    message = Message(role="user", content=[text("a"), text("b")])
    assert read_history([message], {}) == read_history([{"role": "user", "content": "a\nb"}], {})
    assert as_mapping(message) == {"role": "user", "content": "a\nb"}
