"""``cyllama chat`` at a terminal: keys are pressed, and what a person sees is compared."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import sys
import termios
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cyllama.cli.chat_input import HISTORY_BYTES, keys_kept
from cyllama.cli.terminal import TOY as TOY_ANSWERS

from ..support.command import ALT_ENTER, CTRL_C, CTRL_D, ENTER, TAB, TOY, UP, Terminal
from ..support.random_models import REASONING, write_random_model

NICE, KNOWN, UNKNOWN = "Nice to meet you, Ada.", "Your name is Ada.", "You have not told me your name."
TELL, ASK = "My name is Ada.", "What is my name?"
ANYTHING = re.compile(r"\S")
CHAT = ("chat", *TOY, "--temperature", "0")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal(*CHAT) as terminal:
        yield terminal


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes anything, and never ends."""
    folder = tmp_path_factory.mktemp("models")
    return write_random_model(folder / "endless.gguf", "llama", endless=True, n_ctx_train=2**16)


def say(terminal: Terminal, text: str, answer: str) -> None:
    """Wait for the prompt, send a message, and wait for its answer."""
    terminal.expect("> ")
    terminal.press(text + ENTER)
    terminal.expect(answer)


def test_a_person_chats_and_leaves_by_ctrl_d(terminal: Terminal):
    assert "tiny-chat. /help shows" in terminal.expect("> ")
    terminal.press(TELL + ENTER)
    terminal.expect(NICE)
    say(terminal, ASK, KNOWN)
    terminal.expect("> ")
    terminal.press(CTRL_D)
    assert terminal.wait() == 0


def test_run_without_a_prompt_chats():
    with Terminal("run", *TOY[1:], "--temperature", "0") as terminal:
        say(terminal, TELL, NICE)
        say(terminal, ASK, KNOWN)
        say(terminal, "/bye", "")
        assert terminal.wait() == 0


def test_a_terminal_tells_that_the_toy_answers():
    with Terminal("chat") as terminal:
        assert TOY_ANSWERS in terminal.expect("> ")
        assert f"\x1b[2m{TOY_ANSWERS}".encode() in terminal.output, "dim"


def test_lines_can_be_edited_and_recalled(terminal: Terminal):
    say(terminal, "What is your name?\b\b\b\b\b\b\b\b\b\bmy name?", UNKNOWN)
    say(terminal, TELL, NICE)
    say(terminal, UP + UP, KNOWN)


def test_what_was_typed_is_kept_for_the_next_chat_unless_that_is_not_wanted(tmp_path: Path):
    env = {"XDG_STATE_HOME": str(tmp_path)}
    history = tmp_path / "cyllama/chat_history"
    with Terminal(*CHAT, "--no-history", env=env) as terminal:
        say(terminal, TELL, NICE)
    assert not history.exists()
    with Terminal(*CHAT, env=env) as terminal:
        say(terminal, TELL, NICE)
        say(terminal, "/exit", "")
        assert terminal.wait() == 0
    assert history.stat().st_mode & 0o777 == 0o600
    with Terminal(*CHAT, env=env) as terminal:
        say(terminal, UP + UP, NICE)


def test_the_history_does_not_grow_without_end(tmp_path: Path):
    history = tmp_path / "cyllama/chat_history"
    history.parent.mkdir()
    entries = [f"\n# 2026-01-01 00:00:00.000000\n+message {i}\n" for i in range(40_000)]
    history.write_text("".join(entries))
    assert history.stat().st_size > HISTORY_BYTES
    with Terminal(*CHAT, env={"XDG_STATE_HOME": str(tmp_path)}) as terminal:
        terminal.expect("> ")
        terminal.press(UP)
        terminal.expect("message 39999")
    kept = history.read_text()
    assert HISTORY_BYTES // 2 - 100 < len(kept) <= HISTORY_BYTES // 2
    assert "".join(entries).endswith(kept)
    assert kept.startswith("\n# ")
    assert [path.name for path in history.parent.iterdir()] == ["chat_history"]
    assert history.stat().st_mode & 0o777 == 0o600


def test_a_history_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path):
    file = tmp_path / "a file"
    file.write_text("where a folder should be")
    with Terminal(*CHAT, env={"XDG_STATE_HOME": str(file)}) as terminal:
        say(terminal, TELL, NICE)
        say(terminal, "/exit", "")
        assert terminal.wait() == 0


def test_a_message_of_several_lines(tmp_path: Path):
    file = tmp_path / "lines.chat"
    with Terminal(*CHAT) as terminal:
        say(terminal, f"One{ALT_ENTER}two\x0athree{ENTER}", "")
        say(terminal, f"four\\{ENTER}five", "")
        say(terminal, f'"""six{ENTER}{ENTER}/seven"""', "")
        terminal.press("\x1b[200~eight\rnine\x1b[201~" + ENTER)  # pasted
        say(terminal, f"/save {file}", "4 turns saved")
    with zipfile.ZipFile(file) as archive:
        messages = json.loads(archive.read("messages.json"))
    told = [message["content"] for message in messages if message["role"] == "user"]
    assert told == ["One\ntwo\nthree", "four\nfive", "six\n\n/seven", "eight\nnine"]


def test_the_tab_key_completes_commands(terminal: Terminal):
    say(terminal, TELL, NICE)
    terminal.expect("> ")
    terminal.press(f"/res{TAB}")
    terminal.expect("/reset")
    terminal.press(ENTER)
    terminal.expect("forgotten")
    say(terminal, ASK, UNKNOWN)


def test_what_is_typed_during_an_answer_is_the_next_message_and_not_in_the_answer(endless: Path):
    with Terminal("chat", "-m", str(endless), "--temperature", "0", "-n", "1500") as terminal:
        say(terminal, "Hello!", "Hello!")
        terminal.expect(ANYTHING)  # it is generating
        terminal.press("/help" + ENTER + "/nothing" + ENTER)
        answer = terminal.expect("(cut off after 1500 tokens")
        assert "/help" not in answer
        assert "/nothing" not in answer
        terminal.expect("> /help")
        terminal.expect("Ctrl-C stops an answer")
        terminal.expect("> /nothing")
        terminal.expect("there is no command /nothing")


def test_ctrl_c_stops_the_answer_and_not_the_program(endless: Path, tmp_path: Path):
    file = tmp_path / "stopped.chat"
    with Terminal("chat", "-m", str(endless), "--temperature", "0") as terminal:
        for _ in range(2):
            say(terminal, "Hello!", "Hello!")
            terminal.expect(ANYTHING)  # it is generating
            terminal.press(CTRL_C)
            terminal.expect("(stopped)")
        say(terminal, f"/save {file}", "2 turns saved")
        say(terminal, "/exit", "")
        assert terminal.wait() == 0
    with zipfile.ZipFile(file) as archive:
        messages = json.loads(archive.read("messages.json"))
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert messages[1]["content"]


def test_ctrl_c_at_the_prompt_drops_the_line_and_tells_how_to_leave(terminal: Terminal):
    terminal.expect("> ")
    terminal.press("My name is Bob")
    terminal.expect("Bob")
    terminal.press(CTRL_C)
    terminal.expect("Ctrl-D or /exit leaves.")
    say(terminal, ASK, UNKNOWN)
    say(terminal, "/exit", "")
    assert terminal.wait() == 0


def test_sigterm_gives_the_terminal_back_as_it_was(endless: Path):
    with Terminal("chat", "-m", str(endless), "--temperature", "0") as terminal:
        before = terminal.settings
        say(terminal, "Hello!", "Hello!")
        terminal.expect(ANYTHING)  # it is generating
        during = terminal.settings
        terminal.terminate()
        assert terminal.wait() == -signal.SIGTERM
        assert terminal.settings == before != during
        assert not terminal.is_cursor_hidden


def test_sigterm_at_the_prompt_gives_the_terminal_back_too(terminal: Terminal):
    before = terminal.settings
    terminal.expect("> ")
    terminal.terminate()
    assert terminal.wait() == -signal.SIGTERM
    assert terminal.settings == before


def test_reasoning_is_shown_dim(tmp_path: Path):
    path = write_random_model(tmp_path / "reasoning.gguf", "llama", chat_template=REASONING, endless=True)
    with Terminal("chat", "-m", str(path), "--temperature", "0", "-n", "8") as terminal:
        say(terminal, "Hello!", "(cut off after 8 tokens, as -n says)")
        assert re.search(rb"\x1b\[2m\w+", terminal.output.partition(b"Hello!")[2])


def test_a_wrong_command_is_no_reason_to_fail_at_a_terminal(terminal: Terminal):
    say(terminal, "/foo", "cyllama: there is no command /foo")
    terminal.expect("> ")
    terminal.press(CTRL_D)
    assert terminal.wait() == 0


def test_keys_are_not_shown_while_they_are_kept_and_are_afterwards(monkeypatch: pytest.MonkeyPatch):
    keyboard, screen = pty.openpty()
    with os.fdopen(screen) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        before = termios.tcgetattr(stdin)
        assert before[3] & termios.ECHO
        with suppress(KeyboardInterrupt), keys_kept():
            os.write(keyboard, b"typed\r")
            assert (
                os.read(stdin.fileno(), 64) == b"typed\r"
            )  # Enter is still the key, and the terminal has seen all of it
            raise KeyboardInterrupt
        assert termios.tcgetattr(stdin) == before
        assert select.select([keyboard], [], [], 0) == ([], [], []), "nothing was shown"
    os.close(keyboard)


def test_a_long_name_of_a_model_is_shown_once_and_cut(tmp_path: Path):
    path = write_random_model(tmp_path / "long.gguf", "llama", endless=True, name="A model with a name " * 10)
    with Terminal("chat", "-m", str(path), "-n", "2", "--stats") as terminal:
        header = terminal.expect("> ")
        assert "..." in header
        terminal.press("Hello!" + ENTER)
        terminal.expect("tokens/s")
        assert terminal.text.count("A model with") == header.count("A model with") == 3


def test_an_answer_wraps_at_words():
    with Terminal(*CHAT, columns=40) as terminal:
        say(terminal, "Tell me a story about a fox.", "best friends.")
        lines = [line.rstrip() for line in terminal.text.split("\n")]
        begin = next(i for i, line in enumerate(lines) if line.startswith("Once upon"))
        story = lines[begin : begin + 3]
        assert all(len(line) < 40 for line in story)
        words = " ".join(story).split()
    with Terminal(*TOY, "--temperature", "0", "Tell me a story about a fox.") as wide:
        wide.wait()
        assert " ".join(words) in " ".join(wide.text.split())
