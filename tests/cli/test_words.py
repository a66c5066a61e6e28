"""A word that was meant as a command is not answered as a prompt."""

from __future__ import annotations

import pytest

from cyllama import PromptError
from cyllama.cli import COMMANDS
from cyllama.cli.words import check_is_prompt

from ..support.command import call


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("chatt", "did you mean `cyllama chat`?"),
        ("model", "did you mean `cyllama models`?"),
        ("Tokenise", "did you mean `cyllama tokenize`?"),
        ("help", "did you mean `cyllama --help`?"),
        ("list", "did you mean `cyllama models`?"),
        ("download", "did you mean `cyllama pull NAME`?"),
        ("push", "this installation has no such command; it has bench, chat, "),
    ],
)
def test_a_word_near_a_command_is_refused_with_a_hint(word: str, hint: str):
    for more in ([], ["a", "b"]):
        result = call(word, *more)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert hint in result.stderr
        assert f"cyllama -- {word}" in result.stderr


def test_a_command_behind_options_is_refused():
    result = call("-n", "4", "chat")
    assert (result.returncode, result.stdout) == (2, "")
    assert "a command stands before all options: `cyllama chat`" in result.stderr


@pytest.mark.parametrize("prompt", ["Hello", "what", "full", "Paul", "chat with me", "Is a help a help?", "", "1"])
def test_other_prompts_are_not_refused(prompt: str):
    check_is_prompt(prompt, tuple(COMMANDS))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_is_a_prompt_behind_two_hyphens(name: str):
    with pytest.raises(PromptError):
        check_is_prompt(name, tuple(COMMANDS))
    result = call("-n", "1", "--", name)
    assert result.returncode == 0
    assert result.stdout.strip()
