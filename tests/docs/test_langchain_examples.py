"""The examples of the LangChain provider run as they are, and what they print is what they promise."""

from __future__ import annotations

import re
from pathlib import Path

from ..support.programs import EXAMPLES, number_in, run

KNOWN = re.compile(r"(\d+) of (\d+) tokens were known")


def known_share(lines: list[str]) -> float:
    """Return which part of the prompts was known, of all lines that tell."""
    found = [match for line in lines if (match := KNOWN.search(line))]
    assert len(found) == len(lines)
    return sum(int(match[1]) for match in found) / sum(int(match[2]) for match in found)


def without_counts(lines: list[str]) -> list[str]:
    return [line.partition(" (")[0] for line in lines]


def test_every_example_is_tested():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in (EXAMPLES / "langchain").glob("*.py")} <= tested


def test_quickstart(tmp_path: Path):
    lines = run("langchain/quickstart.py", tmp_path)
    tokens = {"input_tokens": 17, "output_tokens": 12, "total_tokens": 29, "input_token_details": {"cache_read": 0}}
    assert lines == [
        "answer: The capital of France is Paris.",
        "finish reason: stop",
        f"tokens: {tokens}",
        "stream: 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15.",
        "tool calls: [('GetWeather', {'location': 'Paris'})]",
        "structured: Joke(setup='Why did the cat sit on the computer?', punchline='To keep an eye on the mouse.')",
    ]


def test_message_histories(tmp_path: Path):
    names = ["Ada", "Ben", "Mia", "Tom", "Zoe", "Max", "Eva", "Leo", "Ida", "Sam"]
    *answers, total, sessions = run("langchain/message_histories.py", tmp_path)
    first, second, third = answers[:10], answers[10:20], answers[20:]
    assert without_counts(first) == [f"{name}: Nice to meet you, {name}." for name in names]
    assert without_counts(second) == [f"{name}: The capital of France is Paris." for name in names]
    assert without_counts(third) == [f"{name}: Your name is {name}." for name in names]
    assert known_share(second) > 0.6
    assert known_share(third) > 0.8
    assert number_in([total], "tokens of all prompts: ") > 1000
    assert sessions == "sessions: ben, eva, ida, leo, max, mia, sam, tom, zoe"


def test_rag(tmp_path: Path):
    lines = run("langchain/rag.py", tmp_path)
    assert lines[:7] == [
        "texts embedded: 9, in passes over the model: 1",
        "When does the bakery open? The bakery opens at 7:30.",
        "What colour is the boat? The boat is blue.",
        "When was Mia born? Mia was born in 1984.",
        "Who owns the castle? The castle belongs to Tom.",
        "What does Emma have? Emma has a red umbrella.",
        "together: True",
    ]
    assert lines[7].startswith("best: The bakery opens at 7:30. (0.")


def test_parallel_chains(tmp_path: Path):
    lines = run("langchain/parallel_chains.py", tmp_path)
    assert lines[0].startswith("story: Once upon a time there was a fox named ")
    assert lines[1] == "joke: Why did the fox cross the road? To get to the other side."
    assert lines[2].startswith("numbers: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10")
    assert number_in(lines[3:4], "") > 1.5, "they were decoded together"
    chunks, changes = re.findall(r"\d+", lines[4])
    assert int(chunks) > 30
    assert int(changes) > 10, "their chunks arrived in turn"
    first, again = (number_in([line], "evaluated for three prompts: ") for line in lines[5:])
    assert first > 30
    assert again == 3  # the last token of each, to have something to go on from


def test_batch(tmp_path: Path):
    lines = run("langchain/batch.py", tmp_path)
    for line in lines[:16]:
        animal = line.partition(":")[0]
        assert line.startswith(f"{animal}: Once upon a time there was a {animal} named ")
    tokens, steps = map(int, re.findall(r"\d+", lines[16]))
    assert tokens == 16 * 48
    assert steps < tokens / 8, "most of them were decoded together"
    *short, long = lines[17:]
    assert sorted(short) == ["request 1: 1, 2, 3.", "request 2: 1, 2, 3, 4, 5, 6, 7, 8."]
    assert long == f"request 0: {', '.join(map(str, range(1, 61)))}."


def test_structured_extraction(tmp_path: Path):
    lines = run("langchain/structured_extraction.py", tmp_path)
    assert lines[:3] == [
        "Person(name='Ada', age=36, city='London')",
        "Person(name='Zorblax', age=7, city='Quimby')",
        "Person(name='Mia', age=52, city='Oslo')",
    ]
    assert lines[3].startswith("at random: Person(name=")
    assert lines[4] == 'cut off: {"name": "Ada",, length, None'
    assert lines[5] == "error: OutputParsingError"


def test_time_travel(tmp_path: Path):
    lines = run("langchain/time_travel.py", tmp_path)
    assert without_counts(lines) == [
        "My name is Ada. Nice to meet you, Ada.",
        "I live in London. Got it, you live in London.",
        "Where do I live? You live in London.",
        "- back to the first turn:",
        "I live in Oslo. Got it, you live in Oslo.",
        "Where do I live? You live in Oslo.",
        "What is my name? Your name is Ada.",
        "- and on with the first branch:",
        "Where do I live? You live in London.",
    ]
    assert known_share(lines[4:5]) > 0.7, "the first turn was not evaluated again"
    assert known_share(lines[5:7]) > 0.75
    assert known_share(lines[8:]) > 0.3, "nor was what the branches have in common"


def test_agent(tmp_path: Path):
    lines = run("langchain/agent.py", tmp_path)
    assert without_counts(lines) == [
        "ada: Nice to meet you, Ada.",
        "ben: Nice to meet you, Ben.",
        "mia: Nice to meet you, Mia.",
        "ada: It is sunny in Paris.",
        "ben: It is snowing in Oslo.",
        "mia: It is foggy in London.",
        *(f"{thread}: The result is 42." for thread in ("ada", "ben", "mia")),
        "ada: Your name is Ada.",
        "ben: Your name is Ben.",
        "mia: Your name is Mia.",
    ]
    assert "(get_weather({'location': 'Oslo'}); " in lines[4]
    assert "(add({'a': 17, 'b': 25}); " in lines[7]
    assert known_share(lines[3:]) > 0.9


def test_sharing_and_closing(tmp_path: Path):
    lines = run("langchain/sharing_and_closing.py", tmp_path)
    assert lines[:2] == ["shared: True", "answer: The capital of France is Paris."]
    assert number_in(lines, "one has closed: n_ctx=") > 0
    assert lines[3] == "all have closed: n_ctx=0"
    assert lines[4:6] == ["the chat has closed: n_ctx=1024", "you have closed: n_ctx=0"]
    assert lines[6] == "ada: Nice to meet you, Ada. (0 tokens were known; sessions: ada)"
    assert lines[7].startswith("ada: Your name is Ada. (")
    assert number_in(lines[7:8], "ada: Your name is Ada. (") > 15
    assert lines[8:] == [
        "ben: Nice to meet you, Ben. (0 tokens were known; sessions: ben)",
        "ada: Your name is Ada. (0 tokens were known; sessions: ada)",
        "contexts created: 3",
    ]
