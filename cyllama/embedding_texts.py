"""Texts to embed, and documents to rank, as token ids."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from .config import ModelConfig
from .control_text import decomposes
from .errors import ContextSizeError, PromptError, PromptTypeError, UnsupportedModelError
from .llama.llama_cpp import LlamaModel, LlamaPoolingType, LlamaVocabType
from .tokenizer import Tokenizer


def text_tokens(tokenizer: Tokenizer, texts: str | Iterable[str], limit: int, *, truncate: bool) -> list[list[int]]:
    """Return the tokens of texts to embed.

    Args:
        tokenizer: Makes them.
        texts: A text, or any number of them.
        limit: Most tokens of a text.
        truncate: Leave out the tokens of a text that are too many, instead of refusing it.

    Raises:
        PromptError: There is no text, or one is empty or cannot be made into tokens.
        ContextSizeError: One is too long.
    """
    around = tokenizer.tokenize("")
    n_first = int(bool(around) and around[0] == tokenizer.vocab.bos)
    n_last = len(around) - n_first
    tokens: list[list[int]] = []
    for i, text in enumerate(check_texts([texts] if isinstance(texts, str) else texts)):
        with _naming(what := "the text" if isinstance(texts, str) else f"text {i}"):
            ids = tokenizer.tokenize(text)
        if ids == around:
            raise PromptError(f"{what} is empty: it has no tokens")
        tokens.append(fit(ids, limit, what, n_first=n_first, n_last=n_last, truncate=truncate))
    return tokens


def pair_tokens(
    model: LlamaModel, query: str, documents: Iterable[str], limit: int, *, truncate: bool
) -> list[list[int]]:
    """Return the tokens of a query with each of the documents, for a model that ranks.

    Args:
        model: The model.
        query: The question.
        documents: Texts that may answer it.
        limit: Most tokens of both together.
        truncate: Leave out the end of documents that are too long, instead of refusing them.

    Raises:
        PromptError: There is no document, or a text is empty or cannot be made into tokens.
        ContextSizeError: A document is too long.
    """
    if not isinstance(query, str):
        raise PromptTypeError(f"the query is a str, not {type(query).__name__}: {query!r:.80}")
    if not query:
        raise PromptError("the query is empty")
    tokenize, pairs = PairTokenizer(model, query), list[list[int]]()
    with _naming("the query"):
        model.vocab.tokenize(query)
    for i, document in enumerate(check_texts(documents, "document")):
        with _naming(f"document {i}"):
            ids, n_first, n_last = tokenize(document)
        what = f"the query with document {i}"
        pairs.append(fit(ids, limit, what, n_first=n_first, n_last=n_last, truncate=truncate))
    return pairs


# --- models


def pooling_of(model: LlamaModel, config: ModelConfig, name: str) -> LlamaPoolingType:
    """Return how the model pools the vectors of a text's tokens: by their mean if its file does not say.

    Raises:
        UnsupportedModelError: The model has no vocabulary, or llama.cpp does not know its pooling.
    """
    if model.vocab.type == LlamaVocabType.NONE:
        raise UnsupportedModelError(f"{name} cannot embed text: it has no vocabulary")
    key = f"{model.metadata.get('general.architecture')}.pooling_type"
    value = config.kv_overrides.get(key, model.metadata.get(key))
    try:
        pooling = LlamaPoolingType.UNSPECIFIED if value is None else LlamaPoolingType(int(value))
    except ValueError:
        raise UnsupportedModelError(f"{name} cannot embed text: its pooling_type {value!r} is unknown") from None
    unnamed = pooling in (LlamaPoolingType.UNSPECIFIED, LlamaPoolingType.NONE)
    return LlamaPoolingType.MEAN if unnamed else pooling


def max_text_tokens(model: LlamaModel, n_ctx: int | None) -> int:
    """Return the most tokens of a text: many of these models have no more positions than they were trained for."""
    return min(n_ctx or model.n_ctx_train, model.n_ctx_train)


# --- texts


def check_texts(texts: object, what: str = "text") -> list[str]:
    """Return a list of texts, none of them empty.

    Raises:
        PromptError: There are none, or one is empty.
        PromptTypeError: It is not a list of str.
    """
    if isinstance(texts, (str, bytes, bytearray, Mapping)) or not isinstance(texts, Iterable):
        raise PromptTypeError(f"expected a list of {what}s, not {type(texts).__name__}: {texts!r:.80}")
    checked: list[str] = []
    for text in texts:
        if not isinstance(text, str):
            raise PromptTypeError(
                f"{what} {len(checked)} of the list is a str, not {type(text).__name__}: {text!r:.80}"
            )
        if not text:
            raise PromptError(f"{what} {len(checked)} of the list is empty")
        checked.append(text)
    if not checked:
        raise PromptError(f"the list of {what}s is empty")
    return checked


def fit(
    tokens: list[int], limit: int, what: str, *, n_first: int = 0, n_last: int = 0, truncate: bool = False
) -> list[int]:
    """Return the tokens of a text, at most ``limit``.

    Args:
        tokens: All tokens of the text.
        limit: Most tokens to return.
        what: Names the text in messages.
        n_first: Tokens at its beginning that are never left out.
        n_last: Tokens at its end that are never left out.
        truncate: Leave out tokens before the ``n_last`` ones, instead of refusing the text.

    Raises:
        ContextSizeError: There are more than ``limit``, or those that are never left out are.
    """
    if len(tokens) <= limit:
        return tokens
    if not truncate:
        raise ContextSizeError(
            f"{what} has {len(tokens)} tokens but at most {limit} are evaluated at once: split it, or pass "
            f"truncate=True to leave out the rest"
        )
    if n_first + n_last >= limit:
        raise ContextSizeError(
            f"{what} has {n_first + n_last} tokens that cannot be left out but at most {limit} are evaluated at once"
        )
    return tokens[: limit - n_last] + tokens[len(tokens) - n_last :]


class PairTokenizer:
    """Makes tokens of a query and a document as a rank model was trained with them.

    By the model's own template, or as pairs are written for BERT and its descendants.
    """

    def __init__(self, model: LlamaModel, query: str) -> None:
        self._vocab, self._query, self._decomposes = model.vocab, query, decomposes(model)
        template = model.chat_template("rerank")
        self._template = template if template is not None and "{document}" in template else None

    def __call__(self, document: str) -> tuple[list[int], int, int]:
        """Return the tokens, how many of them come before the document, and how many after it."""
        if self._template is None:
            before, after = self._around()
            return before + self._tokens(document) + after, len(before), len(after)
        head, tail = (part.replace("{query}", self._query) for part in self._template.split("{document}", 1))
        head_tokens, tail_tokens = (self._tokens(part, parse_special=True) for part in (head, tail))
        return self._tokens(head + document + tail, parse_special=True), len(head_tokens), len(tail_tokens)

    def _tokens(self, text: str, *, parse_special: bool = False) -> list[int]:
        text = unicodedata.normalize("NFD", text) if self._decomposes else text
        return self._vocab.tokenize(text, add_special=False, parse_special=parse_special)

    def _around(self) -> tuple[list[int], list[int]]:
        vocab = self._vocab
        eos = vocab.eos if vocab.eos >= 0 else vocab.sep
        before = [vocab.bos] if vocab.add_bos else []
        before += self._tokens(self._query)
        before += [eos] if vocab.add_eos else []
        before += [vocab.sep] if vocab.add_sep else []
        after = [eos] if vocab.add_eos else [vocab.sep] if vocab.add_sep else []
        return before, after


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Name the text in the message where one of many cannot be encoded."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise PromptError(f"{what} cannot be encoded: it has a lone surrogate at index {error.start}") from error
    except PromptError as error:
        raise PromptError(f"{what}: {error}") from error
