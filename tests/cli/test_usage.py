"""How a command was called wrongly is said in one line, with the value and the way out."""

from __future__ import annotations

import pytest

from ..support.command import call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "abc", "Hi"], "-n / --max-tokens: expected an integer, not 'abc'"),
        (["-nabc", "Hi"], "-n / --max-tokens: expected an integer, not 'abc'"),
        (["--temperature=hot", "Hi"], "--temperature: expected a number, not 'hot'"),
        (["bench", "--n-parallel", "500"], "--n-parallel: expected a value less than or equal to 120, not '500'"),
        (
            ["--bogus", "Hi"],
            "no such option: --bogus (Possible options: --verbose): `cyllama --help` shows what there is",
        ),
        (["chat", "--bogus"], "`cyllama chat --help` shows what there is"),
        (
            ["Tell", "me", "a", "story"],
            "unexpected: me a story. Text of several words needs quotes; `cyllama --help` shows what there is",
        ),
        (["run"], "missing argument 'model': `cyllama run --help` shows what there is"),
        (["pull", "a/b", "--revision"], "option '--revision' requires an argument: `cyllama pull --help`"),
        (["--json-schema", "none.json", "Hi"], "neither a JSON object nor a file with one, none.json: No such file"),
        (["--chat-template-kwargs", "[1]", "Hi"], "--chat-template-kwargs: expected a JSON object, not [1]"),
        (["--raw", "--system", "Be kind.", "Hi"], "system cannot be used here: the prompt is continued as it is"),
    ],
)
def test_a_wrong_call_is_explained_in_one_line(arguments: list[str], message: str):
    result = call(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"cyllama: {message}" in result.stderr or message in result.stderr
    assert len([line for line in result.stderr.splitlines() if "tiny-chat" not in line]) == 1


def test_help_and_version_are_no_errors():
    for arguments in (["--help"], ["chat", "-h"], ["--version"]):
        result = call(*arguments)
        assert (result.returncode, result.stderr, bool(result.stdout)) == (0, "", True)
