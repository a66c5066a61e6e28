"""The examples run as they are, and what they print is what they promise."""

from __future__ import annotations

from ..support.programs import EXAMPLES, number_in, run


def test_every_example_is_tested():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested


def test_quickstart(tmp_path):
    lines = run("quickstart.py", tmp_path)
    assert lines[:4] == [
        "answer: The capital of France is Paris.",
        "model: tiny-chat",
        "finish reason: stop",
        "tokens: 17 prompt + 12 completion",
    ]
    assert "timed: True" in lines
    assert "stream: 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15." in lines
    (chunks,) = [line for line in lines if " chunks, together the response: " in line]
    assert int(chunks.split()[0]) > 10  # text arrives bit by bit
    assert chunks.endswith("True")
    assert lines[-1] == "up to the first comma: 3"


def test_context_reuse(tmp_path):
    lines = run("context_reuse.py", tmp_path)
    steps = [line for line in lines if "created=" in line]
    assert [" ".join(step.split()[-3:]) for step in steps] == [
        "created=0 reused=0 n_ctx=0",  # loaded
        "created=1 reused=0 n_ctx=256",  # first generation
        "created=1 reused=1 n_ctx=256",  # same size
        "created=2 reused=1 n_ctx=768",  # grown
        "created=2 reused=2 n_ctx=768",  # never shrinks
        "created=2 reused=2 n_ctx=0",  # closed
        "created=2 reused=2 n_ctx=0",  # closed again
        "created=3 reused=2 n_ctx=256",  # on demand
        "created=4 reused=2 n_ctx=256",  # after reset_context()
        "created=1 reused=1 n_ctx=512",  # fixed
        "created=1 reused=2 n_ctx=0",  # after the with block
    ]
    assert "same text every time: True" in lines
    assert any(line.startswith("refused: the prompt has 601 tokens but n_ctx is 512") for line in lines)
    assert "nothing was evaluated: True" in lines
    assert "no limit but n_ctx: 512 tokens in all, finish reason length" in lines


def test_long_running_loop(tmp_path):
    lines = run("long_running_loop.py", tmp_path)
    assert lines[0] == "240 jobs: 216 answered, 12 no valid text, 12 too long"
    assert lines[1] == "contexts created: 1, reused: 215"
    assert number_in(lines, "resident memory after 240 jobs: ") > 1
    assert number_in(lines, "grown by ") < 2


def test_independent_conversations(tmp_path):
    lines = run("independent_conversations.py", tmp_path)
    assert "ada: Your name is Zorblax." in lines
    assert "ben: Your name is Quimby." in lines
    assert "stranger: You have not told me your name." in lines
    assert "prompt tokens reused from earlier calls: 0" in lines
    assert lines.count("reset: n_ctx=0") == 2
    assert [line for line in lines if line.startswith("contexts created: ")] == [
        "contexts created: 1",
        "contexts created: 3",
    ]
    assert lines[-1] == "same answers as before: True"


def test_sessions(tmp_path):
    lines = run("sessions.py", tmp_path)
    assert lines[0].startswith("ada: Nice to meet you, Ada. (0 of ")
    assert lines[2] == "ada: Your name is Ada. (24 of 39 tokens were known)"
    assert lines[3] == "ben: Your name is Ben. (22 of 37 tokens were known)"
    assert lines[4].startswith("a branch of ada: Once upon a time there was a dog")
    assert lines[5:] == ["evaluated for it: 18 tokens", "loaded: ada, 47 tokens; sessions: ['ben', 'ada']"]


def test_many_callers(tmp_path):
    lines = run("many_callers.py", tmp_path)
    animals = ["fox", "dog", "cat", "owl", "bear", "mouse", "horse", "rabbit"]
    for animal, line in zip(animals, lines, strict=False):
        assert line.startswith(f"{animal}: Once upon a time there was a {animal} named ")
    assert float(lines[8].split()[0]) > 2, "they were decoded together"
    assert lines[9].startswith("tasks: Once upon a time there was a fox")
    assert lines[10] == "a stream that was left: cancelled"
    assert lines[11].startswith("the longest of 4: ")


def test_low_level(tmp_path):
    lines = run("low_level.py", tmp_path)
    assert lines[0].endswith("4 layers, 17 tokens of prompt")
    assert lines[1:] == [
        "answer: The capital of France is Paris.",
        "the KV cache holds 28 tokens",
        "cleared: 0 tokens",
        "evaluated again, same answer: True",
        "tail removed: True, 16 tokens left",
        "one token evaluated, same answer: True",
        "restored: 16 tokens, the same ids: True",
        "restored context, same answer: True",
        "refused: token id 1280 is out of range: the vocabulary has ids 0 to 1279",
        "refused: not a usable state: it has 11 bytes, fewer than a header",
        "closed with the model: True",
    ]


def test_chat(tmp_path):
    assert run("chat.py", tmp_path) == [
        "3, 4, 5, 6, 7.",
        "Your name is Ada.",
        "get_weather: It's sunny in Paris.",
        "It is sunny in Paris.",
        "Ada, 36",
        "cosine of two equal texts: 1.000",
    ]
