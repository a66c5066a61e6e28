"""``cyllama tokenize``: ids and pieces of texts."""

from __future__ import annotations

import json

import pytest

from cyllama import LLM

from ..support.command import TOY, call

TEXTS = ["Hello, world!", "wörld 李明 🦊", "<|im_start|>user", 'a "b"\n\n', ""]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_a_prompt_and_pieces_are_the_text(llm: LLM, text: str):
    for arguments, stdin in (([text], ""), ([], text)):
        document = json.loads(call("tokenize", *TOY, "--json", *arguments, stdin=stdin).stdout)
        ids = [token["id"] for token in document["tokens"]]
        assert ids == llm.tokenize(text)
        assert document["count"] == len(ids)
        lines = call("tokenize", *TOY, *arguments, stdin=stdin).stdout.splitlines()
        assert [int(line.split()[0]) for line in lines] == ids
        shown = [json.loads(line.strip().partition(" ")[2]) for line in lines]
        assert shown == [token["text"] for token in document["tokens"]]
        if text.isascii():
            assert "".join(shown) == text
        assert call("tokenize", *TOY, "--count", *arguments, stdin=stdin).stdout == f"{len(ids)}\n"


def test_control_tokens_can_be_read_as_text(llm: LLM):
    text = "<|im_start|>"
    assert len(llm.tokenize(text)) == 1
    document = json.loads(call("tokenize", *TOY, "--json", "--no-special", text).stdout)
    assert [token["id"] for token in document["tokens"]] == llm.tokenize(text, parse_special=False)
    assert json.loads(call("tokenize", *TOY, "--json", "--count", text).stdout) == {"model": "tiny-chat", "count": 1}
