"""`make bench` runs, computes ratios that mean what they say, and draws the same plots for the same figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from gguf.quants import dequantize

from ..support.source_tree import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def measurement(benchmarks_on_the_path: None) -> ModuleType:
    from kit import measurement

    return measurement


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--skip-peers", "--threads=1", f"--out={folder}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_scenario_runs_and_writes_its_results(results: Path):
    from run import SCENARIOS

    document = json.loads((results / "results.json").read_text())
    assert {m["scenario"] for m in document["measurements"]} == set(SCENARIOS)
    assert all(m["samples"].get("cyllama") or m["failures"] for m in document["measurements"])
    assert document["machine"]["commit"]
    assert "callers" in (results / "results.md").read_text()
    plots = sorted(results.glob("*.svg"))
    assert len(plots) == 2 * sum(bool(m["samples"]) for m in document["measurements"])
    for plot in plots:
        assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_a_contender_that_fails_is_shown_with_the_reason(tmp_path: Path):
    for name in ("llama-server", "llama-bench", "llama-batched-bench"):
        (tmp_path / name).write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
        (tmp_path / name).chmod(0o755)
    arguments = ["--quick", "--scenario=stream", "--peer=llama-server", "--threads=1", f"--out={tmp_path / 'results'}"]
    environment = {**os.environ, "CYLLAMA_TOOLS": str(tmp_path)}
    command = [sys.executable, str(BENCHMARKS / "run.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "missing: llama-server: it did not start: out of order" in done.stdout
    assert "missing: llama.cpp's tools: llama-bench failed with 3: out of order" in done.stdout


SERVER_THAT_BREAKS_OFF = """#!{python}
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        self.do_GET()
        self.wfile.write(b'data: {{"content": "a"}}\\n\\ndata: {{"error": {{"message": "out of order"}}}}\\n\\n')


HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_a_server_that_breaks_off_is_shown_and_the_others_go_on(tmp_path: Path):
    server = tmp_path / "llama-server"
    server.write_text(SERVER_THAT_BREAKS_OFF.format(python=sys.executable))
    server.chmod(0o755)
    arguments = ["--quick", "--scenario=start", "--peer=llama-server", "--threads=1", f"--out={tmp_path / 'results'}"]
    command = [sys.executable, str(BENCHMARKS / "run.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CYLLAMA_TOOLS": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        'missing: llama-server: llama-server ended its answer with {"error": {"message": "out of order"}}'
        in done.stdout
    )


def test_the_pages_show_a_published_run(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import publish

    (tmp_path / "docs").mkdir()
    for page in ("README.md", "docs/performance.md"):
        shutil.copy(ROOT / page, tmp_path / page)
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    monkeypatch.setattr(publish, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(sys, "argv", ["publish.py", str(results)])
    for _ in range(2):  # what is there is replaced
        publish.main()
        for page in (tmp_path / "README.md", tmp_path / "docs" / "performance.md"):
            text = page.read_text()
            pictures = re.findall(r'(?:srcset|src)="(.*?)"', text)
            assert len(pictures) == len(set(pictures)) > 1, "one for light pages, and one for dark ones"
            assert all((page.parent / picture).exists() for picture in pictures)
        assert text.count("| Time to the first token of callers at once | 2 callers |") == 1
        assert text.count("| tiny-chat |") == 1
    assert (
        json.loads((tmp_path / "docs" / "benchmarks" / "results.json").read_text())[0]["machine"]["flags"] is not None
    )


def test_a_ratio_above_one_is_ahead_whether_more_is_better_or_less(measurement: ModuleType):
    rate = measurement.Measurement("s", "rate", "tokens/s")
    wait = measurement.Measurement("s", "wait", "ms", "less")
    for ours, theirs in ((20.0, 10.0), (30.0, 20.0), (10.0, 10.0)):
        rate.add("cyllama", ours)
        rate.add("llama-server", theirs)
        wait.add("cyllama", theirs)
        wait.add("llama-server", ours)
    for each in (rate, wait):
        assert each.ratio("llama-server") == measurement.Ratio(1.5, 1.0, 2.0, 3)


def test_the_worst_places_are_named_each_measurement_once(measurement: ModuleType):
    def measured(title: str, peers: dict[str, tuple[float, ...]]):
        made = measurement.Measurement("s", title, "tokens/s", axis="callers")
        for who, values in {"cyllama": (10.0, 10.0), **peers}.items():
            for x, value in zip("12", values, strict=True):
                made.add(who, value, x)
        return made

    found = measurement.worst(
        [
            measured("ahead", {"llama-server": (5.0, 4.0)}),
            measured("behind", {"llama-server": (20.0, 30.0), "xllamacpp": (40.0, 1.0)}),
            measured("near the limit", {"llama-batched-bench": (12.5, 10.0), "xllamacpp": (1.0, 1.0)}),
            measured("alone", {}),
            measured("bound", {"a read loop": (1000.0, 1000.0)}),
        ]
    )
    assert [(s.title, s.x, s.other, s.ratio.median) for s in found] == [
        ("behind", "1", "xllamacpp", 0.25),
        ("near the limit", "1", "llama-batched-bench", 0.8),
        ("ahead", "1", "llama-server", 2.0),
    ]


def test_who_is_missing_is_named_once_for_each_reason_with_the_scenarios(measurement: ModuleType):
    start, load, embed = (measurement.Measurement(*names, "s") for names in (("a", "1"), ("a", "2"), ("b", "3")))
    start.failures["peer"] = load.failures["peer"] = embed.failures["peer"] = "out of order"
    embed.failures["server"] = "no"
    assert measurement.missing_lines([start, load, embed]) == (
        "- Missing in a, b: peer: out of order\n- Missing in b: server: no"
    )


def test_every_contender_and_a_native_limit_have_colours_of_their_own():
    from kit.plots import THEMES
    from peers.contender import EVERYONE

    for theme in THEMES.values():
        assert len({theme.ours, *theme.others}) >= len(EVERYONE) + 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("axis", ["callers", ""])
def test_a_plot_shows_every_contender_and_is_the_same_every_time(measurement: ModuleType, axis: str, theme: str):
    from kit.plots import THEMES, plot

    made = measurement.Measurement("s", "Speed & <more>", "tokens/s", axis=axis)
    for x in ("1", "8") if axis else ("",):
        made.add("cyllama", 20.0, x)
        made.add("llama-server", 10.0, x)
    text = plot(made, THEMES[theme])
    assert text == plot(made, THEMES[theme])
    assert "Speed & <more>: tokens/s, more is better" in "".join(ElementTree.fromstring(text).itertext())
    assert all(name in text for name in ("cyllama", "llama-server"))
    assert len(text) < 4000


@pytest.mark.parametrize(
    ("kind", "cols"), [("Q4_0", 256), ("Q8_0", 256), ("Q4_K_M", 256), ("Q4_K_M", 96), ("F16", 256)]
)
@pytest.mark.parametrize("precise", [False, True])
def test_random_weights_have_their_standard_deviation(
    benchmarks_on_the_path: None, kind: str, cols: int, precise: bool
):
    from kit.random_gguf import _random_matrix, _type_of

    data, stored_as = _random_matrix(np.random.default_rng(0), 64, cols, 0.02, _type_of(kind, cols, precise=precise))
    weights = data if stored_as is None else dequantize(data, stored_as)
    assert np.isfinite(weights).all()
    assert weights.shape == (64, cols)
    assert np.std(weights) == pytest.approx(0.02, rel=0.1)
    assert abs(np.mean(weights)) < 0.15 * 0.02  # values of Q4_0 are from -8 to 7
    assert stored_as is None or stored_as.name in {"Q4_0", "Q8_0", "Q4_K", "Q5_0", "Q6_K"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "argument --rounds: expected more than 0, not 0"),
        (["--threads=-1"], "argument --threads: expected more than 0, not -1"),
        (["--minutes", "nan"], "argument --minutes: expected more than 0, not nan"),
        (["--model", "0.5b Q4", "--scenario", "stream"], "there is no model '0.5b Q4': there are 0.5b Q4_0, "),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_measured(arguments: list[str], message: str):
    done = subprocess.run([sys.executable, str(BENCHMARKS / "run.py"), *arguments], capture_output=True, text=True)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
