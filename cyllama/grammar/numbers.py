"""Ranges and multiples of numbers as grammars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import partial

from .gbnf import Rules, choice

_DIGITS = 15  # of a decimal number that survive a float
_PLACES = 20  # behind the point
_MOST_MULTIPLES = 1000  # that are listed one by one
_LARGEST_MODULUS = 128
_EXACT = Context(prec=200)

#: Integers beyond it are not written where a range is open: all of 64 bits are below.
LARGEST = 10**20 - 1
#: Beyond it a bound is not enforced.
MOST = Decimal(10) ** 30

_TINY = (
    '( [1-9] ( "." [0-9]{1,17} )? [eE] "-" '
    '( "0"? [5-9] | [1-9] [0-9] | [12] [0-9]{2} | "3" ( [01] [0-9] | "2" [0-3] ) ) | [5-9] [eE] "-324" )'
)
_HUGE = '[1-9] ( "." [0-9]{1,17} )? [eE] "+"? ( "1" [6-9] | [2-9] [0-9] )'
#: Numbers that are written without an exponent are between these, by Python and by JavaScript.
HUGE_FROM, TINY_TO = Decimal(10) ** 16, Decimal("1e-4")


@dataclass(frozen=True)
class Interval:
    """A range of numbers.

    Attributes:
        low: The least number; ``None`` without one.
        high: The largest number; ``None`` without one.
        above: Whether ``low`` itself is excluded.
        below: Whether ``high`` itself is excluded.
    """

    low: Decimal | None = None
    high: Decimal | None = None
    above: bool = False
    below: bool = False

    @property
    def is_open(self) -> bool:
        """Whether every number is in it."""
        return self.low is None and self.high is None

    def __contains__(self, number: Decimal) -> bool:
        if self.low is not None and (number < self.low or (self.above and number == self.low)):
            return False
        return self.high is None or number < self.high or (number == self.high and not self.below)

    def scaled(self, unit: Decimal) -> tuple[int, int] | None:
        """Return the least and the largest multiple of ``unit`` in it, in units; ``None`` without any."""
        low, high = self.ends(unit)
        first = int(_EXACT.divide(low, unit).to_integral_value(ROUND_CEILING))
        last = int(_EXACT.divide(high, unit).to_integral_value(ROUND_FLOOR))
        first += self.above and first * unit == self.low
        last -= self.below and last * unit == self.high
        return (first, last) if first <= last else None

    def ends(self, unit: Decimal) -> tuple[Decimal, Decimal]:
        """Return both ends; for an open end, the largest number written without an exponent, or more."""
        far = max(Decimal(LARGEST), *(abs(end) * 10 for end in (self.low, self.high) if end is not None), unit)
        return (-far if self.low is None else self.low, far if self.high is None else self.high)


def integers(low: int | None, high: int | None) -> str:
    """Return the GBNF of the integers from ``low`` to ``high``, which is not less; ``None`` is an open end."""
    first, last = (None if end is None else Decimal(end) for end in (low, high))
    ends = Interval(first, last).scaled(Decimal(1))
    assert ends is not None
    return " | ".join(_scaled(*ends, 0))


def multiples(step: Decimal, interval: Interval, rules: Rules, *, integer: bool) -> str | None:
    """Return the GBNF of the multiples of a step in an interval; ``None`` where that is too long.

    Args:
        step: The step.
        interval: The interval.
        rules: Where rules are added.
        integer: Whether they are written without a point.

    Raises:
        ValueError: The interval has no multiple of the step.
    """
    ends = interval.scaled(step)
    if ends is None:
        raise ValueError("there is no multiple in its range")
    first, last = ends
    if last - first < _MOST_MULTIPLES:
        found = (_EXACT.multiply(step, Decimal(i)) for i in range(first, last + 1))
        return choice(_texts(found, integer=integer)) or None
    power = step.normalize().as_tuple()
    if power.digits != (1,):
        return _by_remainder(step, interval, rules, integer=integer)
    assert isinstance(power.exponent, int)
    if power.exponent < 0:
        return decimals(interval, most_places=-power.exponent)
    point = "" if integer else ' ".0"?'
    if power.exponent == 0:
        return f"( {integers(first, last)} ){point}"
    zeros = '"' + "0" * power.exponent + '"'
    parts = [f"{part} {zeros}{point}" for part in _signed(first, last)]
    return " | ".join([*([f'"0"{point}'] if first <= 0 <= last else []), *parts])


def _by_remainder(step: Decimal, interval: Interval, rules: Rules, *, integer: bool) -> str | None:
    """Return the GBNF of all multiples of a step, or of those that are not negative, by the remainder of the digits."""
    places = _places(step)
    unit = 10**places
    modulus = int(step * unit)
    if modulus > _LARGEST_MODULUS or places > 2 or interval.high is not None or interval.low not in (None, 0):
        return None

    def end(remainder: int) -> list[str]:
        """Return what may follow digits with a remainder, behind the point."""
        fractions = [".0"] if not places and not integer and remainder == 0 else []
        for n in range(1, places + 1):
            scale = 10 ** (places - n)
            fits = (i for i in range(10**n) if (remainder * unit + i * scale) % modulus == 0)
            fractions += [f".{i:0{n}}" for i in fits]
        whole = ['""'] if remainder * unit % modulus == 0 else []
        return [*whole, *([choice(fractions)] if fractions else [])]

    names = [rules.reserve() for _ in range(modulus)]
    for remainder, name in enumerate(names):
        more = (f"[{digit}] {names[(remainder * 10 + digit) % modulus]}" for digit in range(10))
        rules.define(name, " | ".join([*end(remainder), *more]))
    zero = end(0) if not interval.above else end(0)[1:]
    begins = [f"[{digit}] {names[digit % modulus]}" for digit in range(1, 10)]
    begins += [f'"0" ( {" | ".join(zero)} )'] if zero else []
    sign = '"-"? ' if interval.low is None else ""
    return f"{sign}( {' | '.join(begins)} )"


def _texts(numbers: Iterable[Decimal], *, integer: bool) -> Iterator[str]:
    for number in numbers:
        if number == number.to_integral_value():
            yield f"{int(number)}"
            if not integer:
                yield f"{int(number)}.0"
        elif not integer:
            yield f"{number.normalize():f}"


def _signed(first: int, last: int) -> Iterator[str]:
    """Yield the GBNF of the integers of a range but 0."""
    if first < 0:
        yield from _scaled(first, min(last, -1), 0)
    if last > 0:
        yield from _scaled(max(first, 1), last, 0)


def decimals(interval: Interval, *, most_places: int = _PLACES) -> str | None:
    """Return the GBNF of the numbers in an interval; ``None`` if it is empty.

    Args:
        interval: The interval.
        most_places: How many digits are behind the point at most.
    """
    finest = min(max(_places(end) for end in interval.ends(Decimal(1))), most_places)
    found: list[str] = []
    for places in range(finest + 1):
        ends = interval.scaled(Decimal(1).scaleb(-places))
        if ends is not None:
            found += _scaled(*ends, places)
    if most_places > finest:
        found += _longer(interval, finest, most_places)
    if most_places == _PLACES:
        found += _with_exponents(interval)
    return " | ".join(found) or None


def _with_exponents(interval: Interval) -> Iterator[str]:
    """Yield the GBNF of tiny and huge numbers, as Python and JavaScript write them."""
    low, high = interval.low, interval.high
    if (low is None or low <= 0) and (high is None or high >= TINY_TO):
        yield _TINY
    if (high is None or high >= 0) and (low is None or low <= -TINY_TO):
        yield f'"-" {_TINY}'
    if high is None and (low is None or low <= HUGE_FROM):
        yield _HUGE
    if low is None and (high is None or high >= -HUGE_FROM):
        yield f'"-" {_HUGE}'


def _longer(interval: Interval, finest: int, most_places: int) -> Iterator[str]:
    """Yield the GBNF of numbers with more digits behind the point than the ends have."""
    low, high = interval.ends(Decimal(1))
    above, below = interval.above and interval.low is not None, interval.below and interval.high is not None
    beyond = partial(_beyond, finest=finest, most_places=most_places)
    if low < 0:
        nearest, excluded = -min(high, Decimal(0)), below or high >= 0
        for part in beyond(nearest, -low, above=excluded, below=above, endless=interval.low is None):
            yield f'"-" {part}'
    if high > 0 or (high == 0 and not below):
        nearest, excluded = max(low, Decimal(0)), above and low >= 0
        yield from beyond(nearest, high, above=excluded, below=below, endless=interval.high is None)


def _beyond(
    low: Decimal, high: Decimal, *, finest: int, most_places: int, above: bool, below: bool, endless: bool
) -> Iterator[str]:
    """Yield the GBNF of numbers from ``low``, which is not negative, to ``high`` with digits beyond the finest place.

    Of numbers with many digits two can be the same float: next to an excluded end there are fewer.
    """
    unit = Decimal(1).scaleb(-finest)
    first = int(_EXACT.divide(low, unit).to_integral_value(ROUND_CEILING))
    last = int(_EXACT.divide(high, unit).to_integral_value(ROUND_FLOOR))
    point = '"." ' if not finest else ""
    extra = most_places - finest
    after_low, before_high = (max(1, min(extra, _DIGITS - len(str(end)))) for end in (first, last))
    cells: list[tuple[int, int, str]] = []
    if above and below and first + 1 == last:
        fewest = min(after_low, before_high)
        cells.append((first, first, f"( {_not_zeros(fewest, extra, '[1-8]')} | {_not_nines(fewest, extra, '[1-8]')} )"))
    elif above or below:
        if above and first < last:
            cells.append((first, first, f"( {_not_zeros(after_low, extra, '[1-9]')} )"))
        if below and first + above < last:
            cells.append((last - 1, last - 1, f"( {_not_nines(before_high, extra, '[0-8]')} )"))
    if not below and not endless and first + above <= last:
        cells.append((last, last, f'"0"{{1,{extra}}}'))
    inner = last if endless else last - below - 1
    if first + above <= inner:
        cells.append((first + above, inner, f"[0-9]{{1,{extra}}}"))
    for begin, end, digits in cells:
        yield from (f"{part} {point}{digits}" for part in _scaled(begin, end, finest))


def _not_zeros(most: int, extra: int, other: str) -> str:
    """Return the GBNF of digits of which one of the first ``most`` is not 0."""
    if most == 1:
        return f"{other} [0-9]{{0,{extra - 1}}}"
    return f'{other} [0-9]{{0,{extra - 1}}} | "0"{{1,{most - 1}}} [1-9] [0-9]{{0,{extra}}}'


def _not_nines(most: int, extra: int, other: str) -> str:
    """Return the GBNF of digits that are no more than ``most``, or of which one of these is not 9."""
    if most == 1:
        return f'{other} [0-9]{{0,{extra - 1}}} | "9"'
    return f'{other} [0-9]{{0,{extra - 1}}} | "9"{{1,{most - 1}}} [0-8] [0-9]{{0,{extra}}} | "9"{{1,{most}}}'


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
    """Split a range where the number of digits changes; lengths of which all numbers are inside become one part."""
    low_digits, high_digits = (str(number).zfill(places + 1) for number in (low, high))
    shortest, longest = len(low_digits), len(high_digits)
    begin = shortest if low == 10 ** (shortest - 1) and shortest > places + 1 else shortest + 1
    end = longest if high == 10**longest - 1 else longest - 1
    if begin > end:
        begin = end = longest  # there is no length that is inside as a whole
        full = None
    else:
        point = f' "." [0-9]{{{places}}}' if places else ""
        full = f"( [1-9] [0-9]{{{begin - 1 - places},{end - 1 - places}}}{point} )"
    for length in range(shortest, longest + 1):
        if full is not None and begin <= length <= end:
            if length == begin:
                yield full
            continue
        first = low_digits if length == shortest else "1" + "0" * (length - 1)
        last = high_digits if length == longest else "9" * length
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
