"""Options of the command line do what the options of the same names do in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM
from cyllama.cli.options import parse_adapter
from cyllama.cli.terminal import TOY as TOY_ANSWERS
from cyllama.models import TINY_CHAT

from ..support.command import TOY, call
from ..support.random_models import write_random_adapter

STORY = "Tell me a story about a fox."
PERSON = "Extract name and age as JSON: Ada is 36 years old."


def answer(prompt: str = STORY, **options: Any) -> str:
    with LLM(max_tokens=24) as llm:
        return llm.chat([{"role": "user", "content": prompt}], **options).text


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (("--top-k", "1"), {"top_k": 1}),
        (("--top-p", "0"), {"top_p": 0.0}),
        (("--min-p", "1"), {"min_p": 1.0}),
        (("--temperature", "0", "--repeat-penalty", "1.8"), {"temperature": 0, "repeat_penalty": 1.8}),
        (("--temperature", "1.5", "--seed", "3"), {"temperature": 1.5, "seed": 3}),
    ],
)
def test_sampling(flags: tuple[str, ...], options: dict[str, Any]):
    assert call(*TOY, "-n", "24", *flags, STORY).stdout == f"{answer(**options)}\n"


def test_threads_and_layers_reach_the_model():
    assert call(*TOY, "-t", "1", "-ngl", "0", "-n", "4", STORY).returncode == 0
    for flag, said in ((("-t", "600"), "ModelConfig.n_threads"), (("-ngl", "some"), "ModelConfig.n_gpu_layers")):
        refused = call(*TOY, *flag, STORY)
        assert refused.returncode == 2
        assert said in refused.stderr


def test_a_system_message_is_told_first():
    told = call(*TOY, "--temperature", "0", "--system", "The user's name is Ada.", "What is my name?")
    assert told.stdout == "Your name is Ada.\n"
    refused = call(*TOY, "--raw", "--system", "Be kind.", "Hi")
    assert (refused.returncode, "system cannot be used here" in refused.stderr) == (2, True)


def test_an_answer_fits_a_schema(tmp_path: Path):
    schema = {
        "type": "object",
        "properties": {"age": {"const": 36}},
        "required": ["age"],
        "additionalProperties": False,
    }
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema), encoding="utf-8")
    for text in (json.dumps(schema), str(file)):
        result = call(*TOY, "--temperature", "0", "--json-schema", text, PERSON)
        assert json.loads(result.stdout) == {"age": 36}
    raw = call(*TOY, "--raw", "--temperature", "0", "--json-schema", str(file), PERSON)
    assert json.loads(raw.stdout) == {"age": 36}
    chat = call("chat", *TOY, "--temperature", "0", "--json-schema", str(file), stdin=f"{PERSON}\n")
    assert json.loads(chat.stdout) == {"age": 36}


@pytest.mark.parametrize(
    ("text", "message"), [("[1]", "nor a file"), ("nowhere.json", "No such file"), ("{", "not JSON")]
)
def test_what_is_not_a_schema_is_refused(text: str, message: str):
    result = call("--json-schema", text, STORY)
    assert result.returncode == 2
    assert message in result.stderr.replace("neither a JSON object", "nor a file")


def test_adapters_change_the_answer_by_their_scales(tmp_path: Path):
    file = write_random_adapter(tmp_path / "random.gguf", TINY_CHAT, std=0.05)
    with LLM(temperature=0, max_tokens=24) as llm:
        llm.load_lora("a", file)
        expected = [
            llm.chat([{"role": "user", "content": STORY}], lora={"a": scale}).text + "\n" for scale in (0.0, 0.5, 1.0)
        ]
    assert len(set(expected)) == 3
    options = (*TOY, "-n", "24", "--temperature", "0", STORY)
    assert [call("--lora", f"{file}{scale}", *options).stdout for scale in ("=0", "=0.5", "")] == expected
    refused = call("--lora", "nowhere.gguf", *options)
    assert (refused.returncode, "nowhere.gguf" in refused.stderr) == (2, True)


def test_the_name_of_an_adapter_may_have_an_equals_sign():
    assert parse_adapter("a=b.gguf") == ("a=b.gguf", 1.0)
    assert parse_adapter("a=b.gguf=0.5") == ("a=b.gguf", 0.5)


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["Hi", "-n", "1"], ""),
        (["chat", "-n", "1"], "Hi\n"),
        (["embed", "Hi"], ""),
        (["tokenize", "Hi"], ""),
        (["bench", "-p", "1", "-n", "1", "-r", "1"], ""),
    ],
)
def test_every_command_says_when_the_toy_answers(arguments: list[str], stdin: str):
    assert TOY_ANSWERS in call(*arguments, stdin=stdin).stderr
    assert TOY_ANSWERS not in call(arguments[0], *TOY, *arguments[1:], stdin=stdin).stderr


@pytest.mark.parametrize("stdin", ["", "\n", "  \n\n"])
def test_an_empty_standard_input_is_an_error(stdin: str):
    result = call(*TOY, stdin=stdin)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("cyllama: standard input is empty, so there is no prompt")


def test_an_answer_that_was_cut_says_so():
    story = (*TOY, "--temperature", "0", STORY)  # which does not end by itself
    assert call(*story, "-n", "3").stderr == "(cut off after 3 tokens, as -n says)\n"
    assert call(*story, "--raw", "-n", "1").stderr == "(cut off after 1 token, as -n says)\n"
    assert "(cut off: the context is full. --n-ctx sets" in call(*story, "--n-ctx", "32").stderr
    assert call(*TOY, "--temperature", "0", "What is the capital of France?").stderr == ""


def test_a_draft_model_changes_no_answer():
    flags = ("--temperature", "0", "-n", "24", "-md", str(TINY_CHAT))
    assert call(*TOY, *flags, STORY).stdout == f"{answer(temperature=0)}\n"
    refused = call(*TOY, "--speculation", "draft", STORY)
    assert (refused.returncode, "needs a model that drafts tokens" in refused.stderr) == (2, True)
