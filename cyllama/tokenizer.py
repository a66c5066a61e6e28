"""Text to token ids, and back."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import partial

from .config import GenerationConfig
from .engine import Prompt
from .errors import ConfigError, PromptError, PromptTypeError
from .llama.llama_cpp import LlamaModel, LlamaVocab, LlamaVocabType


class Tokenizer:
    """The tokens of one model.

    Args:
        model: The model.
    """

    def __init__(self, model: LlamaModel) -> None:
        self.vocab = model.vocab
        self._decomposes = decomposes(model)

    def tokenize(self, text: str, *, add_bos: bool | None = None, parse_special: bool = True) -> list[int]:
        """Return the token ids of a text: :meth:`LLM.tokenize`."""
        if not isinstance(text, str):
            raise PromptTypeError(f"expected a str, not {type(text).__name__}: {text!r:.80}")
        if self._decomposes:
            text = unicodedata.normalize("NFD", text)
        try:
            tokens = self.vocab.tokenize(text, add_special=add_bos is None, parse_special=parse_special)
        except UnicodeEncodeError as error:
            raise PromptError(f"the text cannot be encoded: it has a lone surrogate at index {error.start}") from error
        if add_bos:
            if self.vocab.bos < 0:
                raise ConfigError("add_bos: the model has no beginning-of-sequence token")
            tokens.insert(0, self.vocab.bos)
        return tokens

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids: :meth:`LLM.detokenize`."""
        self._check(ids, expected="a list of token ids")
        tokens = list(ids)
        if tokens and tokens[0] == self.vocab.bos and self.vocab.add_bos:
            del tokens[0]  # where it stands, llama.cpp keeps the space that SentencePiece puts before the text
        data = self.vocab.detokenize(tokens, remove_special=True, unparse_special=True)
        return data.decode("utf-8", errors="replace")

    def prompt(self, prompt: str | Sequence[int], config: GenerationConfig, *, append: bool = False) -> Prompt:
        """Return what to continue.

        Args:
            prompt: Text, or the token ids of one.
            config: How it is made into tokens.
            append: Whether it goes on from a conversation, instead of being the whole of it.

        Raises:
            PromptError: It is empty, or cannot be made into tokens.
            ConfigError: A token of ``logit_bias`` is none.
        """
        for token in config.logit_bias:
            if token >= self.vocab.n_tokens:
                raise ConfigError(f"logit_bias: {self._out_of_range(token)}")
        continuation = None
        # What is kept for later does not keep the LLM alive.
        tokenize_rest = partial(_tokenize_rest, self.vocab, parse_special=config.parse_special)
        if isinstance(prompt, str):
            tokens = self.tokenize(prompt, add_bos=config.add_bos, parse_special=config.parse_special)
            continuation = tokenize_rest(prompt) if append else None
        else:
            self._check(prompt)
            tokens = list(prompt)
            continuation = tokens if append else None
        if not tokens and not append:
            raise PromptError("the prompt is empty: it has no tokens to continue from")
        text = prompt if isinstance(prompt, str) else None if tokens else ""
        return Prompt(tokens, text, continuation, tokenize_rest)

    def _check(self, ids: Sequence[int], expected: str = "a str or a list of token ids") -> None:
        if isinstance(ids, (str, bytes)) or not isinstance(ids, Sequence):
            raise PromptTypeError(f"expected {expected}, not {type(ids).__name__}: {ids!r:.80}")
        n_tokens = self.vocab.n_tokens
        for token in ids:
            if not isinstance(token, int) or isinstance(token, bool):
                raise PromptTypeError(f"a token id is an int, not {type(token).__name__}: {token!r:.80}")
            if not 0 <= token < n_tokens:
                raise PromptError(self._out_of_range(token))

    def _out_of_range(self, token: int) -> str:
        return f"token id {token} is out of range: the vocabulary has ids 0 to {self.vocab.n_tokens - 1}"


def decomposes(model: LlamaModel) -> bool:
    """Whether texts are to be decomposed (NFD) before they are tokenized.

    A WordPiece vocabulary that ignores accents was made from such texts, in which a Hangul syllable is several
    characters. llama.cpp decomposes letters with accents only.
    """
    if model.vocab.type != LlamaVocabType.WPM:
        return False
    metadata, prefix = model.metadata, "tokenizer.ggml.normalizer."
    return metadata.get(f"{prefix}strip_accents", metadata.get(f"{prefix}lowercase", "true")) == "true"


def _tokenize_rest(vocab: LlamaVocab, text: str, *, parse_special: bool) -> list[int]:
    """Return the tokens of a text that follows another one."""
    tokenize = partial(vocab.tokenize, add_special=False, parse_special=parse_special)
    # A SentencePiece vocabulary puts a space before every text: let that stand before a newline, and take both away.
    before = tokenize("\n")
    if len(before) > 1 and (tokens := tokenize(f"\n{text}"))[: len(before)] == before:
        return tokens[len(before) :]
    return tokenize(text)
