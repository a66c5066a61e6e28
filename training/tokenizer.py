"""Byte-level BPE tokenizer and rendering of dialogues with the chat template."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import jinja2
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from .corpus import dialogues
from .dialogue import Dialogue, dumps

END_OF_TEXT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
CONTROL_TOKENS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN)
"""Tokens that structure the prompt and are never written as text."""

USER_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""Tokens that have to be readable in the model's output, as tool calls are parsed from it."""

TEMPLATE = (Path(__file__).parent / "template.jinja").read_text(encoding="utf-8")
"""The chat template, as it is embedded in the GGUF file."""


class Renderer:
    """Renders dialogues with the chat template."""

    def __init__(self) -> None:
        """Compile the template."""
        environment = jinja2.Environment()
        # Jinja's own filter escapes HTML and sorts keys; llama.cpp's does neither.
        environment.filters["tojson"] = dumps
        self._template = environment.from_string(TEMPLATE)

    def __call__(self, dialogue: Dialogue) -> str:
        """Return a dialogue as the model sees it."""
        return self._template.render(messages=dialogue.messages, tools=dialogue.tools, add_generation_prompt=False)


def _plain_texts(seed: int, count: int) -> Iterator[str]:
    """Yield rendered dialogues with line breaks in place of the special tokens, out of which no merge may grow."""
    render = Renderer()
    for dialogue in dialogues(seed, count, longest=3):
        text = render(dialogue)
        for token in (*CONTROL_TOKENS, *USER_TOKENS):
            text = text.replace(token, "\n")
        yield text


def train_tokenizer(vocab: int, seed: int, count: int = 40_000) -> Tokenizer:
    """Train a tokenizer that splits text as llama.cpp's "smollm" pre-tokenizer does, digits being separate tokens.

    Args:
        vocab: Number of tokens, the special ones and the 256 bytes included.
        seed: Seed of the dialogues to train on.
        count: Number of these dialogues.

    Returns:
        The tokenizer, which encodes any UTF-8 text.
    """
    tokenizer = _splitting(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[*CONTROL_TOKENS, *USER_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_plain_texts(seed, count), trainer)
    return _with_special_tokens(tokenizer)


def read_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a GGUF file that export.py wrote."""
    fields = gguf.GGUFReader(path).fields
    tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
    merges: list[str] = fields["tokenizer.ggml.merges"].contents()
    ids = {token: number for number, token in enumerate(tokens)}
    pairs: list[tuple[str, str]] = [(first, second) for first, second in map(str.split, merges)]
    return _with_special_tokens(_splitting(models.BPE(ids, pairs)))


def _splitting(model: models.BPE) -> Tokenizer:
    """Return a tokenizer that splits text as llama.cpp's "smollm" pre-tokenizer does before a model sees it."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _with_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Keep a tokenizer from splitting the special tokens, and return it."""
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in CONTROL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False) for token in USER_TOKENS])
    return tokenizer
