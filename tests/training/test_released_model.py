"""The released GGUF file and its card agree with the sources in training/."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import pytest

from cyllama import LLM
from training import tokenizer


@pytest.fixture(scope="module")
def metadata(models_folder: Path) -> dict[str, Any]:
    """The metadata of the GGUF file."""
    reader = gguf.GGUFReader(models_folder / "tiny-chat.gguf")
    return {name: field.contents() for name, field in reader.fields.items()}


def test_the_embedded_chat_template_is_that_of_training(metadata: dict[str, Any], training_folder: Path) -> None:
    template = (training_folder / "template.jinja").read_text(encoding="utf-8")
    assert metadata["tokenizer.chat_template"] == template


def test_the_special_tokens_are_those_of_training(metadata: dict[str, Any]) -> None:
    control, user_defined = 3, 4
    types = dict(zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"], strict=True))
    assert {token for token, kind in types.items() if kind == control} == set(tokenizer.CONTROL_TOKENS)
    assert {token for token, kind in types.items() if kind == user_defined} == set(tokenizer.USER_TOKENS)
    assert metadata["tokenizer.ggml.tokens"][metadata["tokenizer.ggml.eos_token_id"]] == tokenizer.END_OF_TURN


def test_the_tokenizer_can_be_read_back_from_the_file(models_folder: Path) -> None:
    read = tokenizer.read_tokenizer(models_folder / "tiny-chat.gguf")
    text = "<|im_start|>user\nCreate 你好啊集团 (Hello Group), née Ünsal: 12 <tool_call>x🙂<|im_end|>\n"
    with LLM() as llm:
        assert read.encode(text).ids == llm.tokenize(text, add_bos=False)


def test_the_model_card_states_the_measured_accuracy(models_folder: Path, training_folder: Path) -> None:
    card = (models_folder / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+)% \| (\d+)% \|$", card, re.MULTILINE)
    report = json.loads((training_folder / "eval.json").read_text(encoding="utf-8"))
    measured = {
        skill: (round(100 * entry["accuracy"]), round(100 * entry["accuracy_new_phrasing"]))
        for skill, entry in report.items()
    }
    assert {skill: (int(known), int(new)) for skill, known, new in rows} == measured
