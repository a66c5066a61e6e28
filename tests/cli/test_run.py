"""``cyllama run``: a model, and a prompt, standard input or a chat (test_chat_terminal.py)."""

from __future__ import annotations

import json

import pytest

from cyllama.models import TINY_CHAT

from ..support.command import call

QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris.\n"


def test_a_prompt_is_answered():
    result = call("run", str(TINY_CHAT), QUESTION, "--temperature", "0")
    assert (result.stdout, result.stderr, result.returncode) == (ANSWER, "", 0)


def test_standard_input_is_a_prompt():
    result = call("run", str(TINY_CHAT), "--temperature", "0", "--json", stdin=QUESTION)
    assert json.loads(result.stdout)["text"] == ANSWER.strip()


@pytest.mark.parametrize("arguments", [[], ["nowhere.gguf", "Hi"]])
def test_what_cannot_run_is_explained(arguments: list[str]):
    result = call("run", *arguments)
    assert result.returncode == 2
    assert ("nowhere.gguf" if arguments else "missing argument") in result.stderr
