"""Tells control tokens from text that only spells them.

A chat template writes control tokens as text, and the text of a message can spell one as well. Before messages are
rendered, :class:`ControlText` breaks such texts with a character that the filters of templates do not change.
Afterwards, unbroken control tokens are those that the template wrote.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from .llama.llama_cpp import LlamaModel, LlamaVocab, LlamaVocabType

if TYPE_CHECKING:
    from .images import Image

# Noncharacters of Unicode, which are for use inside of a program. If a text has them, they are escaped.
BREAK = "\ufdd0"
_ESCAPE = "\ufdd1"
IMAGE_MARK = "\ufdd4"  # before and after the digest of an image, in a marked text
IMAGE_SHOWN = "<__media__>"  # what a prompt as text has for an image; llama.cpp calls it so too
_ESCAPED = {"\ufdd2": BREAK, "\ufdd3": _ESCAPE, "\ufdd5": IMAGE_MARK}
_TO_ESCAPED = {character: _ESCAPE + escaped for escaped, character in _ESCAPED.items()}
_FIRST_STAND_IN = 0xE000  # what follows _ESCAPE in place of a character that is a control token

_MARK = re.compile(f"{BREAK}|{_ESCAPE}(.)", re.DOTALL)
_TO_ESCAPE = re.compile(f"[{BREAK}{_ESCAPE}{IMAGE_MARK}]")
# The same characters as escapes of JSON. After an even number of backslashes, because "\\u" is not an escape.
_ASCII_MARK = re.compile(r"(?<!\\)((?:\\\\)*)(?:\\u(fdd0)|\\u(fdd1)\\u([0-9a-f]{4}))", re.IGNORECASE)
_ASCII_MARK_IN_TEXT = re.compile(r"\\(?=u[fF][dD][dD][01])")

_LSTRIP, _RSTRIP = 1 << 7, 1 << 8  # llama_token_attr: white space beside the token belongs to it
_SPACE = " \t\n\v\f\r"


class Run(NamedTuple):
    """A part of a text that is tokenized separately.

    Attributes:
        text: The text.
        parts: The text, cut where marks were; empty if the text of control tokens in it means the tokens.
    """

    text: str
    parts: tuple[str, ...] = ()

    @property
    def parse_special(self) -> bool:
        """Whether the text of control tokens means the tokens."""
        return not self.parts


class RenderedChat(str):
    """The prompt of a chat, as a text.

    Attributes:
        marked: The same with what only spells control tokens broken, as :meth:`ControlText.runs` reads it. In the
            place of an image, it has its digest between two of ``IMAGE_MARK``.
        images: The images by their digests.
    """

    marked: str
    images: Mapping[str, Image]

    def __new__(cls, text: str, marked: str, images: Mapping[str, Image] = MappingProxyType({})) -> RenderedChat:
        """Return the text of a prompt with its marked form."""
        result = super().__new__(cls, text)
        result.marked = marked
        result.images = images
        return result

    def __reduce__(self) -> tuple[type[RenderedChat], tuple[str, str, dict[str, Image]]]:
        return RenderedChat, (str(self), self.marked, dict(self.images))


class ControlText:
    """The texts of a vocabulary's control tokens.

    Args:
        model: The model that the vocabulary belongs to.
    """

    def __init__(self, model: LlamaModel) -> None:
        self._vocab = model.vocab
        self._decomposes = decomposes(model)

    # -------------------- before rendering

    def mark(self, text: str, inside: Collection[str] = ()) -> str:
        """Return a text in which nothing spells a control token, alone or together with the text beside it.

        Args:
            text: The text.
            inside: Texts that are marked as well, because a template may write a control token around them.
        """
        if self._decomposes:
            text = unicodedata.normalize("NFD", text)
        if text in inside:
            return escape(text) + BREAK
        if not text or not self._suspicious.search(text):
            return text
        text = escape(text)
        marked = self._break_tokens(text)
        first = max(0, len(text) - self._longest + 1)
        if any(text[match.start() :] in self._prefixes for match in self._first.finditer(text, first)):
            marked += BREAK
        if any(text[: match.end()] in self._suffixes for match in self._last.finditer(text, 0, self._longest - 1)):
            marked = BREAK + marked
        return marked

    def mark_alone(self, text: str, intact: Sequence[int] = ()) -> str:
        """Return a text in which nothing spells a control token, except what begins at the positions ``intact``."""
        if not self._suspicious.search(text):
            return text
        if not intact:
            return self._break_tokens(escape(text))
        return self._break(text, [i for i, _ in self._spans(text) if i not in intact])

    # -------------------- after rendering

    def rendered(self, text: str) -> RenderedChat:
        """Return the prompt that marked messages were rendered to.

        A mark stays only where the text would spell a control token without it.
        """
        if BREAK not in text and _ESCAPE not in text and "\\ufdd" not in text.lower():
            return RenderedChat(text, escape(text))
        text, breaks = self._unmark(_ASCII_MARK.sub(_from_ascii, text))
        broken = [i for i, end in self._spans(text) if bisect_right(breaks, 2 * i) < bisect_left(breaks, 2 * end)]
        return RenderedChat(text, self._break(text, broken))

    def enclosed(self, prompt: RenderedChat, texts: Collection[str], source: str) -> frozenset[str]:
        """Return those of ``texts`` that the template may have made a part of a control token in a prompt.

        Args:
            prompt: The prompt.
            texts: Texts of messages and tools.
            source: The template. A literal in it ends with the beginning of the token, up to the text.
        """
        tokens = {prompt.marked[i:end] for i, end in self._spans(prompt.marked)}
        longest = max(map(len, tokens), default=0)
        short = {text for text in texts if 0 < len(text) < longest} if longest else set[str]()
        ends = {token: _literal_ends(source, token) for token in tokens} if short else {}
        return frozenset(
            text
            for text in short
            if any(token.startswith(text, i) and i + len(text) < len(token) for token in ends for i in ends[token])
        )

    def plain(self, marked: str) -> str:
        """Return a marked text without its marks."""
        return self._unmark(marked)[0]

    def split(self, marked: str) -> Iterator[str]:
        """Yield the marks and characters of a marked text. A character that is escaped is one item with its escape."""
        i = 0
        while i < len(marked):
            length = 2 if marked[i] == _ESCAPE else 1
            yield marked[i : i + length]
            i += length

    def runs(self, marked: str) -> list[Run]:
        """Return the parts of a marked text that are tokenized separately, without marks."""
        if BREAK not in marked and _ESCAPE not in marked:
            return [Run(marked)]
        runs: list[Run] = []
        start = 0  # of what is to be parsed
        end, strip_left = 0, False
        for i, token_end in [*self._spans(marked), (len(marked), len(marked))]:
            if i < end:
                continue  # it overlaps with the token before
            attributes = self._attributes(marked[i:token_end])
            between = marked[end:i]
            if BREAK in between or _ESCAPE in between:
                between = between.lstrip(_SPACE) if strip_left else between
                between = between.rstrip(_SPACE) if attributes & _LSTRIP else between
                parts = tuple(self.plain(part) for part in between.split(BREAK))
                runs += [Run(marked[start:end]), Run("".join(parts), parts)]
                start = i
            end, strip_left = token_end, bool(attributes & _RSTRIP)
        runs.append(Run(marked[start:]))
        return [run for run in runs if run.text]

    # -------------------- tokens

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {text: token for token, text in self._vocab.control_tokens() if text}

    @cached_property
    def _stand_ins(self) -> dict[str, str]:
        """Replacements of the control tokens of one character, which cannot be broken."""
        single = [text for text in self._ids if len(text) == 1]
        return {text: _ESCAPE + chr(_FIRST_STAND_IN + i) for i, text in enumerate(single)}

    @cached_property
    def _characters(self) -> dict[str, str]:
        return _ESCAPED | {stand_in[1]: character for character, stand_in in self._stand_ins.items()}

    @cached_property
    def _lengths(self) -> dict[str, list[int]]:
        """Lengths of the control tokens by their first two characters, or their only one; longest first."""
        lengths: dict[str, set[int]] = {}
        for text in self._ids:
            lengths.setdefault(text[:2], set()).add(len(text))
        return {start: sorted(found, reverse=True) for start, found in lengths.items()}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids), default=1)

    @cached_property
    def _prefixes(self) -> frozenset[str]:
        return frozenset(text[:i] for text in self._ids for i in range(1, len(text)))

    @cached_property
    def _suffixes(self) -> frozenset[str]:
        return frozenset(text[i:] for text in self._ids for i in range(1, len(text)))

    @cached_property
    def _first(self) -> re.Pattern[str]:
        return _one_of({text[0] for text in self._ids})

    @cached_property
    def _last(self) -> re.Pattern[str]:
        return _one_of({text[-1] for text in self._ids})

    @cached_property
    def _suspicious(self) -> re.Pattern[str]:
        ends = {text[i] for text in self._ids for i in (0, -1)}
        return re.compile(f"{_one_of(ends | {*_TO_ESCAPED}).pattern}|{_ASCII_MARK_IN_TEXT.pattern}")

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where each text of a control token begins and ends. Where several begin, it is the longest."""
        lengths, ids = self._lengths, self._ids
        for match in self._first.finditer(text):
            i = match.start()
            for length in lengths.get(text[i : i + 2], ()):
                if text[i : i + length] in ids:
                    yield i, i + length
                    break
            else:
                if text[i] in self._stand_ins:
                    yield i, i + 1

    def _attributes(self, token_text: str) -> int:
        return self._vocab.get_attr(self._ids[token_text]) if token_text else 0

    # -------------------- marks

    def _break_tokens(self, escaped: str) -> str:
        return self._insert(escaped, [i for i, _ in self._spans(escaped)])

    def _break(self, text: str, starts: Sequence[int]) -> str:
        """Return a text with the control tokens that begin at ``starts`` broken."""
        parts, last = [], 0
        for i in starts:
            parts += [escape(text[last:i]), self._insert(text[i], [0])]
            last = i + 1
        return "".join([*parts, escape(text[last:])])

    def _insert(self, escaped: str, starts: Sequence[int]) -> str:
        parts, last = [], 0
        for i in starts:
            parts += [escaped[last:i], self._stand_ins.get(escaped[i], escaped[i] + BREAK)]
            last = i + 1
        return "".join([*parts, escaped[last:]])

    def _unmark(self, marked: str) -> tuple[str, list[int]]:
        """Return the text without marks, and their places: 2n before the character n, 2n + 1 in its place."""
        parts: list[str] = []
        breaks: list[int] = []
        last = n = 0
        for match in _MARK.finditer(marked):
            parts.append(marked[last : match.start()])
            n += match.start() - last
            last = match.end()
            if match[1] is None:
                breaks.append(2 * n)
                continue
            character = self._characters.get(match[1], match[0])  # a template may have such characters as well
            if character in self._stand_ins:
                breaks.append(2 * n + 1)
            parts.append(character)
            n += len(character)
        return "".join([*parts, marked[last:]]), breaks


def decomposes(model: LlamaModel) -> bool:
    """Whether texts have to be decomposed (NFD) before they are tokenized.

    A WordPiece vocabulary that ignores accents was made from such texts, in which a Hangul syllable is several
    characters. llama.cpp decomposes letters with accents only.
    """
    if model.vocab.type != LlamaVocabType.WPM:
        return False
    metadata, prefix = model.metadata, "tokenizer.ggml.normalizer."
    return metadata.get(f"{prefix}strip_accents", metadata.get(f"{prefix}lowercase", "true")) == "true"


def _one_of(characters: set[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of some characters."""
    return re.compile(f"[{''.join(map(re.escape, sorted(characters)))}]" if characters else r"(?!)")


def escape(text: str) -> str:
    """Return a marked text in which every text of a control token means the token."""
    if BREAK in text or _ESCAPE in text or IMAGE_MARK in text:
        text = _TO_ESCAPE.sub(lambda match: _TO_ESCAPED[match[0]], text)
    return _ASCII_MARK_IN_TEXT.sub(lambda _: f"\\{BREAK}", text) if "\\" in text else text


@lru_cache(maxsize=1024)
def _literal_ends(source: str, token: str) -> tuple[int, ...]:
    """Return the lengths of the beginnings of a token's text that a literal of the template ends with."""
    after = r"""\s*(?:['"]|\{\{|\{%)"""
    return tuple(i for i in range(1, len(token) - 1) if re.search(re.escape(token[:i]) + after, source))


def is_escaped(part: str) -> bool:
    """Whether a part, as :meth:`ControlText.split` yields it, stands for a character."""
    return part[0] == _ESCAPE


def _from_ascii(match: re.Match[str]) -> str:
    mark = BREAK if match[2] else _ESCAPE + chr(int(match[4], 16))
    return match[1] + mark


def tokenize_after(vocab: LlamaVocab, text: str, *, parse_special: bool, add_special: bool = False) -> list[int]:
    """Return the tokens of a text that follows another one: without the space that SentencePiece puts before a text."""
    tokenize = partial(vocab.tokenize, add_special=add_special, parse_special=parse_special)
    # Let that space stand before a newline, and take both away.
    before = tokenize("\n")
    if len(before) > 1 and (tokens := tokenize(f"\n{text}"))[: len(before)] == before:
        return tokens[len(before) :]
    return tokenize(text)
