"""The syntax of regular expressions: ECMAScript's and Python's, parsed by `re`."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from .characters import (
    DIGITS,
    LAST,
    SPACES,
    WORDS,
    Range,
    both_cases,
    no_digits,
    no_spaces,
    no_words,
    of_category,
    without,
)

if sys.version_info >= (3, 11):
    from re import _constants as sre  # pyright: ignore[reportAttributeAccessIssue] - the stubs have its old name only
    from re import _parser as sre_parse  # pyright: ignore[reportAttributeAccessIssue]
else:
    import sre_constants as sre
    import sre_parse

constants: Any = sre
_MAX_PATTERN = 10_000


class UnsupportedPatternError(ValueError):
    """A regular expression that cannot be converted to a grammar."""


class InvalidPatternError(UnsupportedPatternError):
    """A text that is not a regular expression."""


@lru_cache(maxsize=256)
def parse(pattern: str) -> Any:
    """Return the parse tree of `re`."""
    if len(pattern) > _MAX_PATTERN:
        raise UnsupportedPatternError(f"it has more than {_MAX_PATTERN} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a FutureWarning: a later Python may read the expression in another way
            return sre_parse.parse(as_python(pattern))
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidPatternError(f"it is not a regular expression: {error}") from error


# ------------------------------------------------------------------------------------------------ ECMAScript to Python

_ECMA = re.compile(
    r"\\(?P<property>[pP])\{(?:[A-Za-z_]+=)?(?P<name>\w+)\}|\\u\{(?P<code>[0-9A-Fa-f]{1,6})\}|\\c(?P<control>[A-Za-z])"
    r"|(?P<slash>\\[/\-_@#%&~`'\"<>:;,=! ])|\(\?<(?P<group>[A-Za-z_$]\w*)>|\\k<(?P<named>[A-Za-z_$]\w*)>"
    r"|\\.|(?P<open>\[\^?\]?)|(?P<close>\])",
    re.DOTALL,
)


def as_python(pattern: str) -> str:
    r"""Return a regular expression of ECMAScript as one of `re`: ``\p{L}``, ``(?<name>...)``, ``\u{1F600}``."""
    in_class = False

    def replace(match: re.Match[str]) -> str:
        nonlocal in_class
        if match["open"]:
            if in_class:
                return match[0].replace("[", "\\[")
            in_class = True
        elif match["close"]:
            in_class = False
        elif match["property"]:
            return _category(match["name"], match["property"] == "P", in_class)
        elif match["code"]:
            return f"\\U{min(int(match['code'], 16), LAST):08x}"
        elif match["control"]:
            return f"\\x{ord(match['control']) % 32:02x}"
        elif match["slash"]:
            return match[0] if match[0][1] in "-# " else match[0][1:]
        elif match["group"]:
            return f"(?P<{match['group'].replace('$', '_')}>"
        elif match["named"]:
            return f"(?P={match['named'].replace('$', '_')})"
        return match[0]

    return _ECMA.sub(replace, pattern)


def _category(name: str, negate: bool, in_class: bool) -> str:
    ranges = of_category(name)
    if ranges is None:
        raise UnsupportedPatternError(f"the property {name!r} of characters is not known")
    found = without([(0, LAST)], ranges) if negate else ranges
    text = "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in found)
    return text if in_class else f"[{text}]"


# --------------------------------------------------------------------------------------------------------- parse trees


def alternatives(items: list[Any]) -> list[list[Any]]:
    """Unfold what consists of one group or one choice, since anchors may be inside."""
    if len(items) == 1:
        kind, value = items[0]
        if kind is sre.SUBPATTERN and not value[1] and not value[2]:
            return alternatives(list(value[3]))
        if kind is sre.BRANCH:
            return [found for branch in value[1] for found in alternatives(list(branch))]
    elif len(items) == 3 and is_begin(items[0]) and is_end(items[2]) and items[1][0] is sre.SUBPATTERN:
        inner = alternatives([items[1]])
        if len(inner) > 1:
            return [[items[0], *branch, items[2]] for branch in inner]
    return [items]


def is_begin(item: Any) -> bool:
    """Whether an item is the anchor of the beginning."""
    return item[0] is sre.AT and item[1] in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING)


def is_end(item: Any) -> bool:
    """Whether an item is the anchor of the end."""
    return item[0] is sre.AT and item[1] in (sre.AT_END, sre.AT_END_STRING)


def is_repeat(kind: Any) -> bool:
    """Whether an item is a repetition."""
    return kind in (sre.MAX_REPEAT, sre.MIN_REPEAT) or str(kind) == "POSSESSIVE_REPEAT"


def width(items: Sequence[Any]) -> tuple[int, int | None]:
    """Return how many characters a sequence matches at least and at most."""
    least, most = 0, 0
    for kind, value in items:
        low, high = item_width(kind, value)
        least += low
        most = None if most is None or high is None else most + high
    return least, most


def item_width(kind: Any, value: Any) -> tuple[int, int | None]:
    """Return how many characters one item matches at least and at most."""
    if kind in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
        return 1, 1
    if kind is sre.SUBPATTERN:
        return width(list(value[3]))
    if kind is sre.BRANCH:
        widths = [width(list(branch)) for branch in value[1]]
        highs = [high for _, high in widths]
        return min(low for low, _ in widths), None if None in highs else max(high or 0 for high in highs)
    if is_repeat(kind):
        low, high = width(list(value[2]))
        if high is None or value[1] is sre.MAXREPEAT:
            return low * int(value[0]), 0 if high == 0 else None
        return low * int(value[0]), high * int(value[1])
    return (0, 0) if kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT) else (0, None)


def characters_of(kind: Any, value: Any, flags: int) -> list[Range] | None:
    r"""Return the characters that an item matches, with ``\d`` for ASCII digits; ``None`` for others."""
    fold = both_cases if flags & sre.SRE_FLAG_IGNORECASE else list
    if kind is sre.LITERAL:
        return fold([(value, value)])
    if kind is sre.NOT_LITERAL:
        return without([(0, LAST)], fold([(value, value)]))
    if kind is sre.ANY:
        return without([(0, LAST)], [] if flags & sre.SRE_FLAG_DOTALL else [(10, 10)])
    if kind is not sre.IN:
        return None
    negate = value[0][0] is sre.NEGATE
    ranges: list[Range] = []
    for part, found in value[negate:]:
        if part is sre.CATEGORY:
            inside, outside = _CATEGORIES[found]
            # In a negated class, what is a digit to some only is one.
            ranges += without([(0, LAST)], outside()) if negate else inside()
        else:
            ranges.append((found, found) if part is sre.LITERAL else found)
    categories = {found for part, found in value if part is sre.CATEGORY}
    if any(pair <= categories for pair in _OPPOSITES):
        ranges = [(0, LAST)]  # such as [\\s\\S]
    return without([(0, LAST)], fold(ranges)) if negate else fold(ranges)


#: The characters of a category, and those that are not in it.
_CATEGORIES: dict[Any, tuple[Callable[[], Sequence[Range]], Callable[[], Sequence[Range]]]] = {
    sre.CATEGORY_DIGIT: (lambda: DIGITS, no_digits),
    sre.CATEGORY_NOT_DIGIT: (no_digits, lambda: DIGITS),
    sre.CATEGORY_SPACE: (lambda: SPACES, no_spaces),
    sre.CATEGORY_NOT_SPACE: (no_spaces, lambda: SPACES),
    sre.CATEGORY_WORD: (lambda: WORDS, no_words),
    sre.CATEGORY_NOT_WORD: (no_words, lambda: WORDS),
}
_OPPOSITES: tuple[set[Any], ...] = (
    {sre.CATEGORY_DIGIT, sre.CATEGORY_NOT_DIGIT},
    {sre.CATEGORY_SPACE, sre.CATEGORY_NOT_SPACE},
    {sre.CATEGORY_WORD, sre.CATEGORY_NOT_WORD},
)
