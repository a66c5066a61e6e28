#!/usr/bin/env python3
"""Put measured figures into the documentation: tables and plots of runs of `make bench`.

It copies every round to docs/benchmarks/results.json, draws the plots that README.md and docs/performance.md show, and
writes the tables between the comments `figures` and `/figures` of these pages.

    make bench && make bench CPU=avx2 BENCH_ARGS="--scenario kernels"
    .venv/bin/python benchmarks/publish.py build/bench/results build/bench/results-avx2
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from cases.kernels import kernel_table
from kit.machine import ROOT
from kit.measurement import Measurement, markdown, missing_lines, worst_lines
from kit.plots import slug, write_plots

DOCS = ROOT / "docs"
PLOTTED = ("callers", "length", "idle")
ON_THE_FIRST_PAGE = "callers"
FIGURES = re.compile(r"(<!-- figures -->\n?).*?(<!-- /figures -->)", re.DOTALL)


def main() -> None:
    """Read the results and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="folders with a results.json each")
    documents = [json.loads((folder / "results.json").read_text()) for folder in parser.parse_args().folders]
    runs = [(document, [Measurement.from_json(each) for each in document["measurements"]]) for document in documents]
    measurements = [measurement for _, each in runs for measurement in each]
    plotted = [m for m in measurements if m.scenario in PLOTTED and m.samples]
    write_plots(plotted, DOCS / "benchmarks")
    (DOCS / "benchmarks" / "results.json").write_text(json.dumps(documents, indent=1) + "\n")
    fill(DOCS / "performance.md", page_of(runs, measurements, plotted))
    fill(ROOT / "README.md", "".join([picture(m, "docs/") for m in plotted if m.scenario == ON_THE_FIRST_PAGE][:1]))


def page_of(
    runs: list[tuple[dict[str, Any], list[Measurement]]], measurements: list[Measurement], plotted: list[Measurement]
) -> str:
    """Return what docs/performance.md shows."""
    parts = [*dict.fromkeys(_machine_line(document["machine"]) for document, _ in runs)]
    parts.append("\n".join(_run_line(document) for document, _ in runs))
    others = [m for m in measurements if m.scenario != "kernels" and m.samples]
    if others:
        parts.append(markdown(others))
    parts += [picture(measurement, "") for measurement in plotted]
    for document, each in runs:
        table = kernel_table(each)
        if table:
            parts += [f"Kernels and steps, computed for {document['machine']['variant']}:", table]
    if missing := missing_lines(measurements):
        parts.append(missing)
    parts.append("Where cyllama stands worst:\n\n" + worst_lines(measurements))
    return "\n\n".join(parts) + "\n\n"


def _machine_line(machine: dict[str, Any]) -> str:
    peers = ", ".join(f"{name} {peer['version']}" for name, peer in machine["peers"].items() if "version" in peer)
    flags = " ".join(flag for flag in machine["flags"] if re.match(r"avx|fma|f16c|bmi2|amx|sve|asimddp|i8mm", flag))
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads; flags {flags}; "
        f"commit {machine['commit'][:10]}, {machine['llama.cpp']}{peers and '; '}{peers}."
    )


def _run_line(document: dict[str, Any]) -> str:
    machine, rounds = document["machine"], document["rounds"]
    return (
        f"- {', '.join(document['seconds'])}: {rounds} round{'s'[: rounds != 1]}, computed for {machine['variant']}; "
        f"at its end, the system's load was {machine['load'][0]:.1f}."
    )


def picture(measurement: Measurement, prefix: str) -> str:
    """Return a picture for light and for dark pages."""
    name = f"{prefix}benchmarks/{slug(measurement)}"
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{name}-dark.svg">'
    return f'<picture>{dark}<img src="{name}-light.svg" alt="{measurement.title}: {measurement.unit}"></picture>\n'


def fill(page: Path, text: str) -> None:
    """Replace what is between the comments of a page."""
    before = page.read_text(encoding="utf-8")
    after, n = FIGURES.subn(lambda match: match[1] + text + match[2], before)
    if n != 1:
        raise SystemExit(f"{page} has to have the comments <!-- figures --> and <!-- /figures --> once")
    page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
