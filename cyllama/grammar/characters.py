"""Sets of characters, and how they are written in GBNF inside a JSON string."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

Range = tuple[int, int]

LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
_MOST_RANGES = 100  # beyond ASCII, in one class: llama.cpp compares a character with each of them

#: Digits, white space and letters: the characters on which ECMAScript and Python agree, which are those of ASCII.
DIGITS: list[Range] = [(48, 57)]
SPACES: list[Range] = [
    *((9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F)),
    *((0x205F, 0x205F), (0x3000, 0x3000)),
]
WORDS: list[Range] = [(48, 57), (65, 90), (95, 95), (97, 122)]
_ODD_SPACES: list[Range] = [(0x1C, 0x1F), (0x85, 0x85), (0xFEFF, 0xFEFF)]  # white space to one of them only


def without(ranges: Iterable[Range], removed: Iterable[Range]) -> list[Range]:
    """Return the characters of ``ranges`` that are not in ``removed``."""
    left = list(ranges)
    for low, high in removed:
        kept = []
        for first, last in left:
            if first < low:
                kept.append((first, min(last, low - 1)))
            if last > high:
                kept.append((max(first, high + 1), last))
        left = kept
    return left


def both_cases(ranges: Iterable[Range]) -> list[Range]:
    """Return characters together with their capital and small forms; beyond ASCII, those of short ranges."""
    result = list(ranges)
    for low, high in list(result):
        for first, last, shift in ((65, 90, 32), (97, 122, -32)):
            if low <= last and high >= first:
                result.append((max(low, first) + shift, min(high, last) + shift))
        if high > 127 and high - low < 1000:
            for code in range(max(low, 128), high + 1):
                result += [(ord(c), ord(c)) for c in {chr(code).lower(), chr(code).upper()} if len(c) == 1]
    return result


@lru_cache(maxsize=64)
def of_category(name: str) -> tuple[Range, ...] | None:
    r"""Return the characters of a Unicode category such as "L" or "Lu", as in ``\p{L}``; ``None`` for another name."""
    short = _CATEGORY_NAMES.get(name, name)
    if short not in _CATEGORIES:
        return None
    result: list[Range] = []
    first: int | None = None
    for code in range(LAST + 2):
        inside = code <= LAST and unicodedata.category(chr(code)).startswith(short)
        if inside and first is None:
            first = code
        elif not inside and first is not None:
            result.append((first, code - 1))
            first = None
    return tuple(result)


@lru_cache(maxsize=1)
def no_digits() -> tuple[Range, ...]:
    """Return the characters that are not a digit in any script."""
    return tuple(without([(0, LAST)], of_category("Nd") or ()))


@lru_cache(maxsize=1)
def no_spaces() -> tuple[Range, ...]:
    """Return the characters that are not white space."""
    return tuple(without([(0, LAST)], [*SPACES, *_ODD_SPACES]))


@lru_cache(maxsize=1)
def no_words() -> tuple[Range, ...]:
    """Return the characters that are not a letter or digit in any script, nor "_"; beyond ASCII, in long ranges."""
    letters = [*(of_category("L") or ()), *(of_category("N") or ())]
    return tuple(
        (low, high) for low, high in without([(0, LAST)], [*letters, (95, 95)]) if low < 128 or high - low > 60
    )


_CATEGORY_NAMES = {
    **{"Letter": "L", "Number": "N", "Punctuation": "P", "Symbol": "S", "Separator": "Z", "Mark": "M", "Other": "C"},
    **{"Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll", "Decimal_Number": "Nd", "Space_Separator": "Zs"},
}
_CATEGORIES = frozenset(
    (
        *("L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Ps", "Pe"),
        *("Pi", "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "C", "Cc", "Cf", "Co", "Cn"),
    )
)


def in_json(ranges: Iterable[Range], *, negate: bool = False) -> tuple[str | None, bool]:
    """Return the GBNF of one of these characters in a JSON string, and whether it allows no other.

    ``None`` stands for no character at all.
    """
    wanted = without([(0, LAST)], ranges) if negate else list(ranges)
    wanted = _joined(without(wanted, [_SURROGATES]))
    exact = True
    if sum(high > 127 for _, high in wanted) > _MOST_RANGES:
        wanted = _joined([*without(wanted, [(128, LAST)]), (128, _SURROGATES[0] - 1), (_SURROGATES[1] + 1, LAST)])
        exact = False
    plain = without(wanted, [(0, 31), (34, 34), (92, 92)])
    alternatives = ["[" + "".join(map(_range, plain)) + "]"] if plain else []
    for code in [*range(32), 34, 92]:
        if any(low <= code <= high for low, high in wanted):
            alternatives.append(_ESCAPED.get(code) or f'"\\\\u{code:04x}"')
    if not alternatives:
        return None, True
    return alternatives[0] if len(alternatives) == 1 else "( " + " | ".join(alternatives) + " )", exact


def _joined(ranges: Iterable[Range]) -> list[Range]:
    """Return ranges in order, without overlaps."""
    result: list[Range] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], high))
        else:
            result.append((low, high))
    return result


_ESCAPED = {8: r'"\\b"', 9: r'"\\t"', 10: r'"\\n"', 12: r'"\\f"', 13: r'"\\r"', 34: r'"\\\""', 92: r'"\\\\"'}


def _range(codes: Range) -> str:
    low, high = codes
    return _code(low) if low == high else f"{_code(low)}-{_code(high)}"


def _code(code: int) -> str:
    return chr(code) if chr(code).isalnum() and code < 128 else f"\\U{code:08X}"
