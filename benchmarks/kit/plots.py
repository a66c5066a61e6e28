"""Small SVG plots, the same bytes for the same values, in colours for light and for dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from kit.measurement import OURS, Measurement, format_value

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 180, 48, 48
BAR, GAP = 18, 8


class Theme(NamedTuple):
    """Colours of a plot: of the page, of the text, of the grid, of cyllama, and of the others in turn."""

    page: str
    text: str
    grid: str
    ours: str
    others: tuple[str, ...]


# one for each peer and for a native limit
LIGHT = ("#0969da", "#1a7f37", "#8250df", "#6e7781", "#9a6700", "#bf3989", "#0a7d91")
DARK = ("#58a6ff", "#3fb950", "#bc8cff", "#8b949e", "#d29922", "#f778ba", "#39c5cf")
THEMES = {
    "light": Theme("#ffffff", "#1f2328", "#d1d9e0", "#c2410c", LIGHT),
    "dark": Theme("#0d1117", "#e6edf3", "#3d444d", "#fb923c", DARK),
}


def write_plots(measurements: Sequence[Measurement], folder: Path) -> list[Path]:
    """Write a plot of each measurement in each theme; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for measurement in measurements:
        for name, theme in THEMES.items():
            path = folder / f"{slug(measurement)}-{name}.svg"
            path.write_text(plot(measurement, theme), encoding="utf-8")
            files.append(path)
    return files


def slug(measurement: Measurement) -> str:
    """Return the beginning of the file names of a measurement's plots."""
    words = "".join(c if c.isalnum() else " " for c in f"{measurement.scenario} {measurement.title}".lower()).split()
    return "-".join(dict.fromkeys(words))[:60].rstrip("-")


def plot(measurement: Measurement, theme: Theme) -> str:
    """Return a plot: lines along an axis of numbers, else bars."""
    places = measurement.places()
    lines = measurement.axis and len(places) > 1 and all(_number(x) is not None for x in places)
    return (_lines if lines else _bars)(measurement, theme)


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _colours(measurement: Measurement, theme: Theme) -> dict[str, str]:
    others = [name for name in measurement.samples if name != OURS]
    return {OURS: theme.ours, **{name: theme.others[i % len(theme.others)] for i, name in enumerate(others)}}


def _frame(measurement: Measurement, theme: Theme, height: int, body: list[str]) -> str:
    title = f"{measurement.title}: {measurement.unit}, {measurement.better} is better"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{theme.text}">'
    )
    page = f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{theme.page}"/>'
    lines = [head, f"<title>{escape(title)}</title>", page, _text(16, 24, title, size=14), *body, "</svg>"]
    return "\n".join(lines) + "\n"


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", colour: str = "") -> str:
    fill = f' fill="{colour}"' if colour else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"{fill}>{escape(text)}</text>'


def _round_up(value: float) -> float:
    """Return the next of 1, 1.5, 2, 3, 4, 6, 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 1.5, 2, 3, 4, 6, 8, 10) if step * power >= value * 0.999)


def _lines(measurement: Measurement, theme: Theme) -> str:
    places = measurement.places()
    medians = {name: {x: measurement.median(name, x) for x in places} for name in measurement.samples}
    top = _round_up(max(v for by_x in medians.values() for v in by_x.values() if v is not None))
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    at_x = {x: LEFT + width * i / (len(places) - 1) for i, x in enumerate(places)}
    body: list[str] = []
    for i in range(5):
        y = TOP + height * (1 - i / 4)
        body.append(f'<path d="M{LEFT} {y:.1f}h{width}" stroke="{theme.grid}"/>')
        body.append(_text(LEFT - 8, y + 4, format_value(top * i / 4), anchor="end"))
    body += [_text(at_x[x], HEIGHT - BOTTOM + 18, x, anchor="middle") for x in places]
    body.append(_text(LEFT + width / 2, HEIGHT - 10, measurement.axis, anchor="middle"))
    colours = _colours(measurement, theme)
    ends: list[tuple[float, str]] = []
    for name, by_x in medians.items():
        points = [(at_x[x], TOP + height * (1 - v / top)) for x, v in by_x.items() if v is not None]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        body.append(
            f'<path d="M{path}" fill="none" stroke="{colours[name]}" stroke-width="{3 if name == OURS else 1.5}"/>'
        )
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colours[name]}"/>' for x, y in points]
        ends.append((points[-1][1], name))
    return _frame(measurement, theme, HEIGHT, body + _labels(ends, colours))


def _labels(ends: list[tuple[float, str]], colours: dict[str, str]) -> list[str]:
    """Return the names beside the ends of their lines, moved down where they would overlap."""
    labels: list[str] = []
    least = 0.0
    for y, name in sorted(ends):
        least = max(y, least)
        labels.append(_text(WIDTH - RIGHT + 10, least + 4, name, colour=colours[name]))
        least += 15
    return labels


def _bars(measurement: Measurement, theme: Theme) -> str:
    colours = _colours(measurement, theme)
    bars = [
        (name, x, value)
        for x in measurement.places()
        for name in sorted(measurement.samples, key=lambda name: name != OURS)
        if (value := measurement.median(name, x)) is not None
    ]
    most = max((value for *_, value in bars), default=1.0) or 1.0
    left, y = 230, TOP
    body: list[str] = []
    for name, x, value in bars:
        length = (WIDTH - left - 80) * value / most
        body.append(_text(left - 8, y + BAR - 5, f"{name} {x}".strip(), anchor="end"))
        body.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colours[name]}"/>')
        body.append(_text(left + length + 6, y + BAR - 5, format_value(value)))
        y += BAR + GAP
    return _frame(measurement, theme, y + GAP, body)
