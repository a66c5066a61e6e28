"""Text to token ids, and back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from .config import GenerationConfig
from .control_text import IMAGE_MARK, IMAGE_SHOWN, ControlText, RenderedChat, Run, decomposes, escape, tokenize_after
from .engine import Prompt, PromptImage
from .errors import ConfigError, PromptError, PromptTypeError, UnsupportedModelError
from .llama.llama_cpp import LlamaModel, LlamaVocab
from .vision import Vision

if TYPE_CHECKING:
    from .images import Image

_IMAGE = re.compile(f"{IMAGE_MARK}([0-9a-f]{{64}}){IMAGE_MARK}")


class Tokenizer:
    """Makes token ids of text, and text of token ids, for one model.

    Args:
        model: The model.
        vision: What it sees images with, if anything.

    Attributes:
        vocab: Its vocabulary.
        control_text: The texts of its control tokens.
    """

    def __init__(self, model: LlamaModel, vision: Vision | None = None) -> None:
        self._vision = vision
        self.vocab = model.vocab
        self.control_text = ControlText(model)
        self._decomposes = decomposes(model)

    def tokenize(self, text: str, *, add_bos: bool | None = None, parse_special: bool = True) -> list[int]:
        """Return the token ids of a text, or of the prompt of a chat.

        Arguments and errors are those of :meth:`LLM.tokenize`.
        """
        if not isinstance(text, str):
            raise PromptTypeError(f"expected a str, not {type(text).__name__}: {text!r:.80}")
        if isinstance(text, RenderedChat):
            images = self._prompt_images(text.images)
            tokens = self._tokenize_with_images(text.marked, images, add_special=add_bos is None)
        else:
            tokens = self._encode(text, add_special=add_bos is None, parse_special=parse_special)
        if add_bos:
            if self.vocab.bos < 0:
                raise ConfigError("add_bos: the model has no beginning-of-sequence token")
            tokens.insert(0, self.vocab.bos)
        return tokens

    def _encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if self._decomposes:
            text = unicodedata.normalize("NFD", text)
        try:
            return self.vocab.tokenize(text, add_special=add_special, parse_special=parse_special)
        except UnicodeEncodeError as error:
            raise _not_encodable(error) from error

    def _prompt_images(self, images: Mapping[str, Image]) -> dict[str, PromptImage]:
        """Return what the images of a prompt are in it, by their digests.

        Raises:
            UnsupportedModelError: The model has no projector.
            ImageError: The projector cannot take one of them.
        """
        if images and self._vision is None:
            raise UnsupportedModelError(
                "the model sees no images: it has no projector. Give it one: LLM(model, projector='mmproj.gguf')"
            )
        return {digest: self._vision.prompt_image(image) for digest, image in images.items()} if self._vision else {}

    def _tokenize_with_images(self, marked: str, images: Mapping[str, PromptImage], *, add_special: bool) -> list[int]:
        """Return the token ids of a marked text, with those of images in their places."""
        if not images:
            return self._tokenize_marked(marked, add_special=add_special)
        first, *rest = _IMAGE.split(marked)
        tokens = self._tokenize_marked(first, add_special=add_special)
        n_last = 0  # tokens that every text ends with
        if add_special and self.vocab.add_eos:
            n_last = 1
        tokens, last = tokens[: len(tokens) - n_last], tokens[len(tokens) - n_last :]
        tokenize = partial(_tokenize_rest, self.control_text, self.vocab, parse_special=True)
        return [*tokens, *_tokens_after_images(rest, images, tokenize), *last]

    def _tokenize_marked(self, marked: str, *, add_special: bool) -> list[int]:
        """Return the token ids of a marked text, in which only the text of unbroken control tokens means the tokens."""
        runs = self.control_text.runs(marked)
        if len(runs) <= 1 and all(run.parse_special for run in runs):
            return self._encode(marked, add_special=add_special, parse_special=True)
        tokens = [token for run in runs for token in _tokenize_run(self.vocab, run, self._encode)]
        if not add_special:
            return tokens
        ends = self.vocab.tokenize("", add_special=True)  # the tokens that every text begins and ends with
        n_first = len(ends) if len(ends) == 1 and self.vocab.add_bos else len(ends) // 2
        return [*ends[:n_first], *tokens, *ends[n_first:]]

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids. Arguments and errors are those of :meth:`LLM.detokenize`."""
        tokens = self._checked(ids, expected="a list of token ids")
        if tokens and tokens[0] == self.vocab.bos and self.vocab.add_bos:
            del tokens[0]  # where it stands, llama.cpp keeps the space that SentencePiece puts before the text
        data = self.vocab.detokenize(tokens, remove_special=True, unparse_special=True)
        return data.decode("utf-8", errors="replace")

    def prompt(
        self, prompt: str | Sequence[int] | Sequence[str | Image], config: GenerationConfig, *, append: bool = False
    ) -> Prompt:
        """Return what to continue.

        Args:
            prompt: Text, the token ids of one, or texts and images in a list.
            config: How it is made into tokens.
            append: Whether it is appended to a conversation, instead of being the whole of it.

        Raises:
            PromptError: It is empty, or cannot be made into tokens.
            ConfigError: A token of ``logit_bias`` is out of range.
        """
        for token in config.logit_bias:
            if token >= self.vocab.n_tokens:
                raise ConfigError(f"logit_bias: {self._out_of_range(token)}")
        continuation = None
        given = self._text_or_ids(prompt, parse_special=config.parse_special)
        # What the prompt holds does not keep the runtime alive.
        control_text = self.control_text
        tokenize_rest = partial(_tokenize_rest, control_text, self.vocab, parse_special=config.parse_special)
        images = self._prompt_images(given.images) if isinstance(given, RenderedChat) else {}
        if images:
            tokenize_rest = partial(_rest_with_images, tokenize_rest, images)
        if isinstance(given, str):
            tokens = self.tokenize(given, add_bos=config.add_bos, parse_special=config.parse_special)
            text = self._marked(given, parse_special=config.parse_special)
            continuation = tokenize_rest(text) if append else None
        else:
            tokens = given
            text = None if tokens else ""
            continuation = tokens if append else None
        if not tokens and not append:
            raise PromptError("the prompt is empty: it has no tokens to continue from")
        by_key = {image.key: image for image in images.values()}
        return Prompt(tokens, text, continuation, tokenize_rest, control_text.mark_alone, by_key)

    def _text_or_ids(
        self, prompt: str | Sequence[int] | Sequence[str | Image], *, parse_special: bool
    ) -> str | list[int]:
        if isinstance(prompt, str):
            return prompt
        if isinstance(prompt, Sequence) and not all(isinstance(part, int) for part in prompt):
            from .images import Image  # here, since most prompts do without

            if any(isinstance(part, Image) for part in prompt):
                return self._joined(prompt, Image, parse_special=parse_special)
        return self._checked(prompt)

    def _joined(self, parts: Sequence[object], image_type: type[Image], *, parse_special: bool) -> RenderedChat:
        """Return the prompt of texts and images that follow each other.

        Raises:
            PromptTypeError: A part is neither.
            PromptError: A text cannot be encoded.
        """
        shown = marked = text = ""  # texts that follow each other are marked together: they may spell a token
        images: dict[str, Image] = {}
        for part in parts:
            if isinstance(part, str):
                text += part
                continue
            if not isinstance(part, image_type):
                raise PromptTypeError(
                    f"a prompt with images is a list of texts and images, not of {type(part).__name__}: {part!r:.80}"
                )
            images[part.digest] = part
            shown += text + IMAGE_SHOWN
            marked += (
                f"{self._marked(_encodable(text), parse_special=parse_special)}{IMAGE_MARK}{part.digest}{IMAGE_MARK}"
            )
            text = ""
        return RenderedChat(shown + text, marked + self._marked(_encodable(text), parse_special=parse_special), images)

    def _marked(self, prompt: str, *, parse_special: bool) -> str:
        if isinstance(prompt, RenderedChat):
            return prompt.marked
        return escape(prompt) if parse_special else self.control_text.mark_alone(prompt)

    def _checked(self, ids: Sequence[object], expected: str = "a str or a list of token ids") -> list[int]:
        if isinstance(ids, (str, bytes)) or not isinstance(ids, Sequence):
            raise PromptTypeError(f"expected {expected}, not {type(ids).__name__}: {ids!r:.80}")
        n_tokens = self.vocab.n_tokens
        tokens: list[int] = []
        for token in ids:
            if not isinstance(token, int) or isinstance(token, bool):
                raise PromptTypeError(f"a token id is an int, not {type(token).__name__}: {token!r:.80}")
            if not 0 <= token < n_tokens:
                raise PromptError(self._out_of_range(token))
            tokens.append(token)
        return tokens

    def _out_of_range(self, token: int) -> str:
        return f"token id {token} is out of range: the vocabulary has ids 0 to {self.vocab.n_tokens - 1}"


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _not_encodable(error) from error
    return text


def _not_encodable(error: UnicodeEncodeError) -> PromptError:
    return PromptError(f"the text cannot be encoded: it has a lone surrogate at index {error.start}")


def _tokenize_rest(control_text: ControlText, vocab: LlamaVocab, marked: str, *, parse_special: bool) -> list[int]:
    """Return the tokens of a marked text that follows another one."""
    tokens: list[int] = []
    after, alone = partial(tokenize_after, vocab), vocab.tokenize
    for i, run in enumerate(control_text.runs(marked)):
        tokens += _tokenize_run(vocab, run, alone if i else after, parse_special=parse_special)
    return tokens


def _rest_with_images(
    tokenize: Callable[[str], list[int]], images: Mapping[str, PromptImage], marked: str
) -> list[int]:
    """Return the tokens of a marked text with images that follows another one."""
    first, *rest = _IMAGE.split(marked)
    return [*(tokenize(first) if first else []), *_tokens_after_images(rest, images, tokenize)]


def _tokens_after_images(
    parts: Sequence[str], images: Mapping[str, PromptImage], tokenize: Callable[[str], list[int]]
) -> list[int]:
    """Return the tokens of images, by their digests, and of the text after each of them, in turn."""
    tokens: list[int] = []
    for digest, text in zip(parts[::2], parts[1::2], strict=True):
        tokens += images[digest].tokens
        tokens += tokenize(text) if text else []
    return tokens


def _tokenize_run(
    vocab: LlamaVocab, run: Run, tokenize: Callable[..., list[int]], *, parse_special: bool = True
) -> list[int]:
    """Return the tokens of a part of a marked text.

    Args:
        vocab: The vocabulary.
        run: The part.
        tokenize: Tokenizes the beginning of the part.
        parse_special: Whether control tokens that the part does not mark mean the tokens.
    """
    tokens = tokenize(run.text, add_special=False, parse_special=parse_special and run.parse_special)
    if run.parse_special or not any(map(vocab.is_control, tokens)):
        return tokens
    # Some tokenizers look for the longest token, or merge two to one, whatever kind of token that is.
    first, *rest = run.parts
    tokens = tokenize(first, add_special=False, parse_special=False)
    for part in rest:
        tokens += tokenize_after(vocab, part, add_special=False, parse_special=False)
    return [token for token in tokens if not vocab.is_control(token)]
