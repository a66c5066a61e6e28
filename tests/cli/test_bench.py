"""``cyllama bench``: the speed of a model, as a table and as JSON."""

from __future__ import annotations

import json
import statistics

import pytest

from cyllama import LLM

from ..support.command import TOY, call

SMALL = ("-p", "16", "-p", "40", "-n", "8", "--n-parallel", "1", "--n-parallel", "2", "-r", "3", "-t", "1")
TESTS = ["pp16", "pp40", "tg8", "pp16 x 2", "pp40 x 2", "tg8 x 2"]


def test_json_has_every_repetition(llm: LLM):
    document = json.loads(call("bench", *TOY, *SMALL, "--json").stdout)
    assert (document["model"], document["threads"], document["parameters"]) == ("tiny-chat", 1, llm.model.n_params)
    assert [each["test"] for each in document["results"]] == TESTS
    for each in document["results"]:
        assert len(each["samples"]) == 3
        assert min(each["samples"]) > 0
        assert each["mean"] == pytest.approx(statistics.fmean(each["samples"]))
        assert each["sd"] == pytest.approx(statistics.stdev(each["samples"]))
    assert [(each["n_prompt"], each["n_gen"], each["n_parallel"]) for each in document["results"]] == [
        *((16, 0, 1), (40, 0, 1), (0, 8, 1)),
        *((16, 0, 2), (40, 0, 2), (0, 8, 2)),
    ]


def test_the_table_has_a_mean_and_a_deviation():
    result = call("bench", *TOY, "-p", "8", "-n", "0", "-r", "2")
    model, head, row = result.stdout.splitlines()
    assert model.startswith("tiny-chat: ")
    assert head.split() == ["test", "tokens/s"]
    name, mean, sign, deviation = row.split()
    assert (name, sign) == ("pp8", "±")
    assert float(mean.replace(",", "")) > 0
    assert float(deviation.replace(",", "")) >= 0


def test_nothing_to_measure_is_an_error():
    result = call("bench", "-p", "0", "-n", "0")
    assert (result.returncode, result.stderr) == (
        2,
        "cyllama: there is nothing to measure: -p and -n are both 0; give one of them\n",
    )
