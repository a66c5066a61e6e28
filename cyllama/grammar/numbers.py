"""Ranges of numbers as grammars."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

_DIGITS = 15  # of a decimal number that survive a float
_PLACES = 6  # behind the point, unless the range is finer

LARGEST = Decimal("9" * _DIGITS)


def integers(low: int, high: int) -> str:
    """Return the GBNF of the integers from ``low`` to ``high``, which is not less."""
    return " | ".join(_scaled(low, high, 0))


def decimals(low: Decimal, high: Decimal, *, above: bool = False, below: bool = False) -> str | None:
    """Return the GBNF of numbers from ``low`` to ``high``, without exponents; ``None`` if there are none.

    Args:
        low: The least number.
        high: The largest number.
        above: Whether ``low`` itself is excluded.
        below: Whether ``high`` itself is excluded.
    """
    # Of longer numbers, two can be the same float, one of which is in the range and the other is not.
    low = Context(prec=_DIGITS, rounding=ROUND_CEILING).create_decimal(low)
    high = Context(prec=_DIGITS, rounding=ROUND_FLOOR).create_decimal(high)
    finest = max(_places(low), _places(high))
    digits = len(str(int(max(abs(low), abs(high)))))
    alternatives: list[str] = []
    for places in range(max(finest, min(_PLACES, _DIGITS - digits)) + 1):
        unit = Decimal(1).scaleb(-places)
        first = int((low / unit).to_integral_value(ROUND_CEILING))
        last = int((high / unit).to_integral_value(ROUND_FLOOR))
        first += above and first * unit == low
        last -= below and last * unit == high
        if first <= last:
            alternatives += _scaled(first, last, places)
    return " | ".join(alternatives) or None


def _places(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def _scaled(low: int, high: int, places: int) -> Iterator[str]:
    """Yield the GBNF of numbers with so many digits behind the point, which ``low`` and ``high`` leave out."""
    if low < 0:
        for part in _naturals(max(1, -high), -low, places):
            yield f'"-" {part}'
    if high >= 0:
        yield from _naturals(max(0, low), high, places)


def _naturals(low: int, high: int, places: int) -> Iterator[str]:
    """Split a range where the number of digits changes."""
    low_digits, high_digits = (str(number).zfill(places + 1) for number in (low, high))
    for length in range(len(low_digits), len(high_digits) + 1):
        first = low_digits if length == len(low_digits) else "1" + "0" * (length - 1)
        last = high_digits if length == len(high_digits) else "9" * length
        if places:
            first, last = (f"{digits[:-places]}.{digits[-places:]}" for digits in (first, last))
        yield f"( {_between(first, last)} )"


def _between(low: str, high: str) -> str:
    """Return the GBNF of the texts of digits between two of the same length, with the point at the same place."""
    same = 0
    while same < len(low) and low[same] == high[same]:
        same += 1
    if same:
        rest = f" ( {_between(low[same:], high[same:])} )" if same < len(low) else ""
        return f'"{low[:same]}"{rest}'
    first, last = int(low[0]), int(high[0])
    low, high = low[1:], high[1:]
    alternatives = []
    if low.strip("0.") and first < last:
        alternatives.append(f'"{first}" ( {_between(low, high.translate(_NINES))} )')
        first += 1
    tail = f'"{last}" ( {_between(low.translate(_ZEROS), high)} )' if high.strip("9.") else ""
    last -= bool(tail)
    if first <= last:
        any_digits = ' "." '.join(f"[0-9]{{{len(part)}}}" if part else '""' for part in low.split("."))
        alternatives.append(f"[{first}-{last}] {any_digits}" if low else f"[{first}-{last}]")
    return " | ".join([*alternatives, *([tail] if tail else [])])


_NINES = str.maketrans("012345678", "9" * 9)
_ZEROS = str.maketrans("123456789", "0" * 9)
