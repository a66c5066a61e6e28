"""``cyllama embed``: texts as arguments or lines, vectors as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cyllama import LLM

from ..support.command import TOY, call
from ..support.random_models import BERT_N_CTX, write_random_bert

TEXTS = ["A fox sleeps.", "An animal rests.", "hello"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bert(tmp_path_factory.mktemp("models") / "bert.gguf")


@pytest.fixture(scope="module")
def vectors(bert: Path) -> list[list[float]]:
    with LLM(str(bert)) as llm:
        return llm.embed(TEXTS)


def from_lines(text: str) -> list[list[float]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_argument_becomes_a_line(bert: Path, vectors: list[list[float]]):
    result = call("embed", "-m", str(bert), *TEXTS)
    assert (result.stderr, result.returncode) == ("", 0)
    assert from_lines(result.stdout) == [pytest.approx(vector, abs=1e-6) for vector in vectors]


def test_every_line_of_standard_input_becomes_a_line(bert: Path, vectors: list[list[float]]):
    for text in ("\n".join(TEXTS), "\n".join(TEXTS) + "\n", "\r\n".join(TEXTS)):
        result = call("embed", "-m", str(bert), stdin=text)
        assert from_lines(result.stdout) == [pytest.approx(vector, abs=1e-6) for vector in vectors]


def test_the_embedded_model_makes_embeddings_too():
    (vector,) = from_lines(call("embed", "A fox sleeps.").stdout)
    assert sum(value * value for value in vector) == pytest.approx(1, abs=1e-5)


def test_json_is_one_document_with_the_model(bert: Path, vectors: list[list[float]]):
    document = json.loads(call("embed", "--json", "-m", str(bert), *TEXTS).stdout)
    assert document["embeddings"] == [pytest.approx(vector, abs=1e-6) for vector in vectors]
    assert document["dimensions"] == len(vectors[0])
    with LLM(str(bert)) as llm:
        assert document["usage"] == {"prompt_tokens": sum(map(llm.count_tokens, TEXTS))}
        assert document["model"] == llm.model_name


def test_vectors_may_keep_their_length(bert: Path):
    (vector,) = from_lines(call("embed", "-m", str(bert), "--no-normalize", TEXTS[0]).stdout)
    with LLM(str(bert)) as llm:
        assert vector == pytest.approx(llm.embed(TEXTS[0], normalize=False), abs=1e-5)
    assert sum(value * value for value in vector) != pytest.approx(1, abs=0.1)


def test_too_long_a_text_is_refused_or_cut(bert: Path):
    text = "fox " * 2 * BERT_N_CTX
    result = call("embed", "-m", str(bert), "hello", text)
    assert (result.stdout, result.returncode, len(result.stderr.splitlines())) == ("", 2, 1)
    assert f"text 1 has {2 * BERT_N_CTX + 2} tokens" in result.stderr
    assert len(from_lines(call("embed", "-m", str(bert), "--truncate", "hello", text).stdout)) == 2


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ([], "", "there are no texts: give them as arguments, or as lines on standard input"),
        ([], "one\n\nthree\n", "text 1 of the list is empty"),
        ([""], "", "text 0 of the list is empty"),
        (["-m", "nowhere.gguf", "one"], "", "there is no model file at 'nowhere.gguf'"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(arguments: list[str], stdin: str, message: str):
    result = call("embed", *(() if "-m" in arguments else TOY), *arguments, stdin=stdin)
    assert (result.stdout, result.returncode, len(result.stderr.splitlines())) == ("", 2, 1)
    assert result.stderr.startswith(f"cyllama: {message}")
