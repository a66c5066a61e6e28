"""``cyllama chat`` through a pipe: a line is a message. test_chat_terminal.py has what a person sees."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cyllama import LLM, ChatDelta
from cyllama.cli.terminal import print_answer

from ..support.command import TOY, call
from ..support.random_models import REASONING, write_random_bert, write_random_model

HELLO = "Hello! How can I help you?"
NICE, KNOWN, UNKNOWN = "Nice to meet you, Ada.", "Your name is Ada.", "You have not told me your name."
TELL, ASK = "My name is Ada.", "What is my name?"


def chat(*lines: str, options: tuple[str, ...] = (), status: int = 0) -> subprocess.CompletedProcess[str]:
    model = () if "-m" in options else TOY
    result = call("chat", "--temperature", "0", *model, *options, stdin="".join(f"{line}\n" for line in lines))
    assert result.returncode == status, result.stderr
    return result


def figures(stderr: str) -> list[tuple[int, int, int]]:
    """Return what --stats says of every answer: tokens of the prompt, cached ones, generated ones."""
    found = re.findall(r"(\d+) prompt tokens(?: \((\d+) of them cached\))? in \d+ ms, (\d+) generated", stderr)
    return [(int(prompt), int(cached or 0), int(generated)) for prompt, cached, generated in found]


def test_every_line_is_a_message_of_one_conversation():
    result = chat(TELL, "", ASK)
    assert (result.stdout, result.stderr) == (f"{NICE}\n{KNOWN}\n", "")


def test_every_turn_evaluates_only_what_is_new():
    first, second, third = figures(chat(TELL, ASK, ASK, options=("--stats",)).stderr)
    for before, after in ((first, second), (second, third)):
        prompt, _, generated = before
        assert after[1] >= prompt + generated - 1


def test_a_system_message_is_told_first_and_outlives_a_reset():
    result = chat(ASK, "/reset", ASK, options=("--system", "The user's name is Ada."))
    assert result.stdout == f"{KNOWN}\n{KNOWN}\n"


def test_the_system_message_can_be_changed_while_the_chat_goes_on():
    result = chat(ASK, "/system", "/system The user's name is Ada.", ASK, "/reset", ASK)
    assert result.stdout == f"{UNKNOWN}\n{KNOWN}\n{KNOWN}\n"
    assert "is told before everything else: nothing" in result.stderr
    assert "is told before everything else: The user's name is Ada." in result.stderr


def test_options_can_be_set_between_messages():
    result = chat("/set max_tokens 3", TELL, "/set", "/set stop_sequences met", "/set max_tokens 9", TELL, status=0)
    first, second = result.stdout.splitlines()
    assert len(first) < len(NICE)
    assert "cut off after 3 tokens" in result.stderr
    assert "max_tokens 3\n" in result.stderr
    assert 'max_tokens 9, stop_sequences "met"' in result.stderr
    assert second


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set temprature 0", "did you mean 'temperature'?"),
        ("/set temperature -1", "greater than or equal to 0"),
        ("/set temperature", "/set needs a value: /set temperature VALUE"),
        ("/regen", "there is no message yet that could be answered again"),
    ],
)
def test_a_command_that_cannot_be_followed_changes_nothing(line: str, message: str):
    result = chat(line, TELL, status=2)
    assert message in result.stderr
    assert result.stdout == f"{NICE}\n"


def test_the_last_message_is_answered_again():
    result = chat(TELL, ASK, "/regen", "/set max_tokens 2", "/regen", options=("--stats",))
    *whole, cut = result.stdout.splitlines()
    assert whole == [NICE, KNOWN, KNOWN]
    assert KNOWN.startswith(cut)
    prompts = [prompt for prompt, _, _ in figures(result.stderr)]
    assert prompts[1] == prompts[2] == prompts[3]


def test_a_message_of_several_lines(tmp_path: Path):
    file = tmp_path / "lines.chat"
    chat("one\\", "two", '"""', "/three", "", 'four"""', '"""five"""', f"/save {file}")
    with zipfile.ZipFile(file) as archive:
        messages = json.loads(archive.read("messages.json"))
    assert [each["content"] for each in messages if each["role"] == "user"] == ["one\ntwo", "/three\n\nfour", "five"]


def test_reset_forgets_what_was_said():
    assert chat(TELL, "/reset", ASK).stdout == f"{NICE}\n{UNKNOWN}\n"


def test_exit_ends_the_chat():
    assert chat(TELL, "/exit", ASK).stdout == f"{NICE}\n"


def test_a_message_may_begin_with_a_slash_behind_a_space():
    result = chat(" /reset means to begin again.")
    assert result.stderr == ""
    assert result.stdout.strip()


def test_help_shows_the_commands():
    text = chat("/help").stdout
    for command in ("/reset", "/save FILE", "/load FILE", "/help", "/exit", "Ctrl-C"):
        assert command in text


def test_a_saved_chat_goes_on_in_another_process_where_it_was(tmp_path: Path):
    file = tmp_path / "ada.chat"
    saved = chat(TELL, f"/save {file}", options=("--stats",))
    assert f"1 turn saved to {file}" in saved.stderr
    loaded = chat("Hello!", f"/load {file}", ASK, options=("--stats",))
    assert loaded.stdout == f"{HELLO}\n{KNOWN}\n"
    ((prompt, _, generated),) = figures(saved.stderr)
    assert figures(loaded.stderr)[-1][1] >= prompt + generated - 1


def test_a_saved_chat_is_one_file_with_the_messages_as_json(tmp_path: Path):
    file = tmp_path / "ada.chat"
    chat(TELL, f"/save {file}", options=("--system", "Be kind."))
    assert list(tmp_path.iterdir()) == [file]
    with zipfile.ZipFile(file) as archive:
        assert json.loads(archive.read("messages.json")) == [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": TELL},
            {"role": "assistant", "content": NICE},
        ]


def test_a_chat_can_be_saved_and_loaded_again_and_again(tmp_path: Path):
    file = tmp_path / "a file.chat"
    result = chat(TELL, f"/save {file}", f"/load {file}", ASK, f"/save {file}", "/reset", f"/load {file}", ASK)
    assert result.stdout == f"{NICE}\n{KNOWN}\n{KNOWN}\n"


def test_a_chat_of_another_model_is_evaluated_again(tmp_path: Path):
    file = tmp_path / "ada.chat"
    other = write_random_model(tmp_path / "random.gguf", "llama")
    chat("Hello!", f"/save {file}", options=("-m", str(other), "-n", "1", "--system", "The user's name is Ada."))
    result = chat(f"/load {file}", ASK)
    assert "saved with another model" in result.stderr
    assert result.stdout == f"{KNOWN}\n"


def test_a_context_that_is_full_says_what_to_do_and_the_chat_goes_on():
    result = chat(TELL, ASK, ASK, "/reset", TELL, options=("--n-ctx", "50"), status=2)
    assert result.stdout == f"{NICE}\n{KNOWN}\n{NICE}\n"
    error, hint, reset = result.stderr.splitlines()
    assert re.fullmatch(r"cyllama: .*\d+ tokens.* n_ctx is 50.*", error)
    assert "/reset" in hint
    assert "--n-ctx" in hint
    assert "forgotten" in reset


def test_an_answer_that_was_cut_off_says_why():
    assert "(cut off after 3 tokens, as -n says)" in chat(TELL, options=("-n", "3")).stderr
    assert "(cut off: the context is full." in chat("Tell me a story about a fox.", options=("--n-ctx", "32")).stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/foo", "there is no command /foo: /help shows those that there are"),
        ("/rest now", "there is no command /rest: did you mean /reset?"),
        ("/save", "/save needs the name of a file: /save FILE"),
        ("/save no/where.chat", "cannot write 'no/where.chat': No such file or directory"),
        ("/load", "/load needs the name of a file: /load FILE"),
        ("/load nowhere.chat", "cannot read 'nowhere.chat': No such file or directory"),
        (f"/load {__file__}", f"'{__file__}' holds no chat that /save wrote, or is damaged"),
    ],
)
def test_an_error_is_one_line_and_the_chat_goes_on(line: str, message: str):
    result = chat(TELL, line, ASK, status=2)
    assert (result.stdout, result.stderr) == (f"{NICE}\n{KNOWN}\n", f"cyllama: {message}\n")


def test_there_is_nothing_to_save_before_the_first_message(tmp_path: Path):
    assert chat(f"/save {tmp_path / 'x'}", status=2).stderr == "cyllama: nothing to save: there is no answer yet\n"
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_leaves_the_chat_as_it_was(tmp_path: Path):
    file = tmp_path / "ada.chat"
    chat("Hello!", f"/save {file}")
    data = file.read_bytes()
    for damaged in (data[: len(data) // 2], data.replace(b"Hello!", b"Hollo?")):
        file.write_bytes(damaged)
        result = chat(TELL, f"/load {file}", ASK, status=2)
        assert result.stdout == f"{NICE}\n{KNOWN}\n"
        assert "is damaged" in result.stderr


def test_a_line_that_is_no_text():
    command = f"printf 'caf\\351\\nHello!\\n' | {sys.executable} -m cyllama chat {' '.join(TOY)} --temperature 0"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout) == (2, f"{HELLO}\n")
    assert result.stderr == "cyllama: standard input is not UTF-8: byte 3 is 0xe9; convert it with iconv\n"


def test_a_model_that_cannot_chat_says_so_at_once(tmp_path: Path):
    path = write_random_bert(tmp_path / "bert.gguf")
    result = call("chat", "-m", str(path), stdin="Hello!\n")
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert "has no chat template" in result.stderr


def test_reasoning_goes_to_standard_error(tmp_path: Path):
    path = write_random_model(tmp_path / "reasoning.gguf", "llama", chat_template=REASONING, endless=True)
    result = chat("Hello!", options=("-m", str(path), "-n", "8"))
    with LLM(str(path), temperature=0, max_tokens=8) as llm:
        message = llm.chat([{"role": "user", "content": "Hello!"}]).message
    assert message.reasoning_content
    assert message.reasoning_content in result.stderr
    assert result.stdout == "\n"


def test_an_answer_begins_on_a_line_of_its_own_after_the_reasoning(capsys: pytest.CaptureFixture[str]):
    deltas = [ChatDelta(reasoning_content=text) for text in ("Is it ", "4?")]
    print_answer([*deltas, ChatDelta("Ye"), ChatDelta("s.")])
    assert capsys.readouterr() == ("Yes.\n", "Is it 4?\n")


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Let programs that are started be ended by SIGINT: started in the background, a shell ignores it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_ends_a_script(tmp_path: Path):
    path = write_random_model(tmp_path / "endless.gguf", "llama", endless=True, n_ctx_train=2**16)
    with subprocess.Popen(
        [sys.executable, "-m", "cyllama", "chat", "-m", str(path), "--temperature", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Hello!\n")
        process.stdin.flush()
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"Traceback" not in stderr
