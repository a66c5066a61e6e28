"""What a stranger's parameters, grammars and files may do: raise, and nothing else."""

from __future__ import annotations

from itertools import islice

import pytest

from .registry import generators
from .runner import Child, random_cases, seeds

N_RANDOM = 40  # of each kind; `make fuzz` goes on for as long as one likes


@pytest.mark.parametrize("name", generators())
def test_every_case_ends_well(name: str):
    with Child() as child:
        findings = [child.run(case) for case in (*seeds([name]), *islice(random_cases([name], seed=1), N_RANDOM))]
    assert [str(finding) for finding in findings if finding is not None] == []


def test_a_process_that_dies_is_a_finding_and_the_next_case_runs():
    with Child() as child:
        assert child.run(next(seeds(["grammars"]))) is None
        child.kill()
        died = child.run({"generator": "grammars", "grammar": 'root ::= "a"', "tokens": []})
        assert died is not None
        assert "the process ended with -9" in died.what
        assert child.run(next(seeds(["grammars"]))) is None


def test_what_a_case_must_not_raise_is_a_finding():
    with Child() as child:
        finding = child.run({"generator": "grammars", "grammar": 5, "tokens": []})
    assert finding is not None
    assert "TypeError" in finding.what
    assert "python -m tests.fuzz --case" in str(finding)
