"""Sessions on up to 100 replicas, simulated: cache hits and waiting times by routing, and what moving sessions costs.

``--svg FILE`` draws the figure of docs/scaling.md. Nothing is measured here: the figures are the same on all machines.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from math import log10
from pathlib import Path

from cases.cluster import POLICIES, Outcome, Policy, Setup, moved, requests_of, simulate
from kit.report import Row, Table

SIZES = (1, 4, 16, 100)
SESSIONS = 10_000  # of each replica
COLORS: Mapping[Policy, str] = {"random": "#718096", "hash": "#c05621", "hash and spill-over": "#2c7a7b"}
KV_BYTES = {"0.5B (Qwen 2.5)": 12 * 1024, "8B (Llama 3.1)": 128 * 1024, "70B (Llama 3.1)": 320 * 1024}
"""Bytes of KV cache for one token: 2 (keys and values) x layers x heads of these x their size x 2 bytes."""

Lines = dict[Policy, list[float]]

FOLDER_RATE = 1e9  # bytes that a shared folder reads or writes in a second
SESSION_TOKENS = 2000


def outcomes(sizes: tuple[int, ...], sessions: int) -> dict[int, dict[Policy, Outcome]]:
    """Return what comes out for each number of replicas and each policy.

    Args:
        sizes: Numbers of replicas.
        sessions: How many sessions each replica has in all. Fewer of them take less time, and come as often.
    """
    found: dict[int, dict[Policy, Outcome]] = {}
    for n in sizes:
        setup = Setup(replicas=n, sessions=n * sessions, seconds=Setup().seconds * sessions / SESSIONS)
        requests = requests_of(setup)
        found[n] = {policy: simulate(setup, policy, requests) for policy in POLICIES}
    return found


def routing_table(n: int, found: Mapping[Policy, Outcome]) -> Table:
    """Return the outcomes for one number of replicas."""
    rows: list[Row] = []
    for policy, each in found.items():
        rows.append(Row(f"{policy}: prompt tokens cached", 100 * each.cached, "{:.1f} %"))
        rows.append(Row(f"{policy}: first token, median", each.first_token, "{:.3f} s"))
        rows.append(Row(f"{policy}: first token, 99th percentile", each.first_token_p99, "{:.3f} s"))
        rows.append(Row(f"{policy}: busiest replica beside the mean", each.busiest, "{:.2f} x"))
        rows.append(Row(f"{policy}: answered elsewhere", 100 * each.elsewhere, "{:.1f} %"))
    return Table(f"{n} replicas", rows)


def movement_table(n_keys: int) -> Table:
    """Return which share of the sessions changes its replica, where replicas come or go."""
    rows: list[Row] = []
    for before, after in ((100, 101), (100, 99), (100, 80)):
        for kind, share in moved(n_keys, before, after).items():
            rows.append(Row(f"{before} -> {after} replicas, {kind}", 100 * share, "{:.1f} %"))
    return Table(f"Sessions that move, of {n_keys:,}", rows)


def storage_table(setup: Setup) -> Table:
    """Return what the sessions of one replica take in the shared folder."""
    live = setup.sessions / setup.seconds * setup.turns * setup.pause / setup.replicas
    rows = [Row("live sessions of one replica", live, "{:.0f}")]
    for model, n_bytes in KV_BYTES.items():
        session = n_bytes * SESSION_TOKENS
        rows.append(Row(f"{model}: a session of {SESSION_TOKENS} tokens", session / 2**20, "{:.0f} MiB"))
        rows.append(Row(f"{model}: read in", session / FOLDER_RATE, "{:.2f} s"))
        rows.append(Row(f"{model}: pays while a replica evaluates less than", FOLDER_RATE / n_bytes, "{:.0f} tokens/s"))
        rows.append(Row(f"{model}: all of a replica, written in", live * session / FOLDER_RATE, "{:.0f} s"))
    return Table(f"Storage, with a folder of {FOLDER_RATE / 1e9:.0f} GB/s", rows)


def figure(found: Mapping[int, Mapping[Policy, Outcome]]) -> str:
    """Return a picture of the outcomes, as SVG: cached tokens, and the 99th percentile of the time to the first one."""
    shares: Lines = {policy: [each[policy].cached for each in found.values()] for policy in POLICIES}
    seconds: Lines = {policy: [each[policy].first_token_p99 for each in found.values()] for policy in POLICIES}
    left = _panel(70, "prompt tokens that were cached", list(found), shares, [(i / 4, f"{25 * i} %") for i in range(5)])
    marks = [
        (0.01, "10 ms"),
        (0.1, "0.1 s"),
        (1, "1 s"),
        (10, "10 s"),
        (100, "100 s"),
        (1000, "1000 s"),
        (10_000, "10000 s"),
    ]
    logs: Lines = {policy: [_log(value) for value in values] for policy, values in seconds.items()}
    right = _panel(
        530, "first token, 99th percentile", list(found), logs, [(_log(value), text) for value, text in marks]
    )
    legend = "".join(
        f'    <rect x="{x}" y="314" width="14" height="4" fill="{COLORS[policy]}"/>\n'
        f'    <text x="{x + 20}" y="321">{policy}</text>\n'
        for policy, x in zip(POLICIES, (70, 170, 250), strict=True)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 340" width="920" '
        'font-family="system-ui, sans-serif" font-size="13">\n'
        "  <title>Cached tokens and waiting times on 1 to 100 replicas</title>\n"
        '  <rect width="920" height="340" rx="12" fill="#ffffff"/>\n'
        f'{left}{right}  <g fill="#1a202c">\n{legend}'
        '    <text x="880" y="321" text-anchor="end">replicas: simulated, 10,000 sessions each</text>\n  </g>\n</svg>\n'
    )


def _log(seconds: float) -> float:
    """Return where a time is between 10 ms (0) and 10,000 s (1)."""
    return min(1.0, max(0.0, (log10(seconds) + 2) / 6))


def _panel(x: int, title: str, sizes: list[int], lines: Lines, marks: list[tuple[float, str]]) -> str:
    """Return one diagram: a line for each policy over the numbers of replicas."""
    width, height, top = 320, 210, 60
    step = width / (len(sizes) - 1)

    def at(i: int, value: float) -> str:
        return f"{x + i * step:.0f} {top + height * (1 - value):.1f}"

    parts = [f'  <g>\n    <text x="{x}" y="36" font-weight="600" fill="#1a202c">{title}</text>\n']
    for value, text in marks:
        y = top + height * (1 - value)
        parts.append(f'    <path d="M{x} {y:.1f}h{width}" stroke="#e2e8f0"/>\n')
        parts.append(f'    <text x="{x - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#4a5568">{text}</text>\n')
    for i, size in enumerate(sizes):
        parts.append(f'    <text x="{x + i * step:.0f}" y="290" text-anchor="middle" fill="#4a5568">{size}</text>\n')
    for policy, values in lines.items():
        points = "L".join(at(i, value) for i, value in enumerate(values))
        parts.append(f'    <path d="M{points}" fill="none" stroke="{COLORS[policy]}" stroke-width="2.5"/>\n')
        for i, value in enumerate(values):
            cx, cy = at(i, value).split()
            parts.append(f'    <circle cx="{cx}" cy="{cy}" r="3.5" fill="{COLORS[policy]}"/>\n')
    return "".join([*parts, "  </g>\n"])


def main() -> None:
    """Simulate, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, help="draw the figure into this file")
    parser.add_argument("--small", action="store_true", help="a twentieth of the time, and at most 16 replicas")
    arguments = parser.parse_args()
    sizes, sessions = (SIZES[:3], 500) if arguments.small else (SIZES, SESSIONS)
    found = outcomes(sizes, sessions)
    for n, each in found.items():
        print(routing_table(n, each), end="\n\n")
    print(movement_table(10_000 if arguments.small else 1_000_000), end="\n\n")
    print(storage_table(Setup()))
    if arguments.svg is not None:
        arguments.svg.write_text(figure(found), encoding="utf-8")


if __name__ == "__main__":
    main()
