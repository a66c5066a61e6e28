"""The command line as a script runs it, and as a person at a terminal does."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from types import TracebackType
from typing import Any
from unittest import mock

import pyte
from typing_extensions import Self

from cyllama.cli import main
from cyllama.models import TINY_CHAT

CTRL_C, CTRL_D, UP, ENTER, ALT_ENTER, TAB = "\x03", "\x04", "\x1b[A", "\r", "\x1b\r", "\t"

TOY = ("-m", str(TINY_CHAT))  # named, so that no note says which model answers
_SECONDS = 120  # after which something hangs
_KEPT_LINES = 2000  # that have left the screen
_TAKE_TERMINAL = """\
import fcntl, runpy, signal, termios
signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, a shell ignores it
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal
runpy.run_module("cyllama", run_name="__main__", alter_sys=True)
"""


def call(*arguments: str, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    """Run ``cyllama`` in this process, as a script does: faster than :func:`run`."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS="200"),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main(list(arguments))
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def run(*arguments: str, stdin: str | None = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``cyllama`` as a script does."""
    return subprocess.run(
        [sys.executable, "-m", "cyllama", *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=_SECONDS,
        env={**os.environ, "COLUMNS": "200", **(env or {})},
        check=False,
    )


class _Screen(pyte.HistoryScreen):
    """A screen that answers what programs ask a terminal.

    Args:
        keyboard: The file descriptor at which keys are pressed.
        columns: Its width.
        lines: Its height.
    """

    def __init__(self, keyboard: int, columns: int, lines: int) -> None:
        super().__init__(columns, lines, history=_KEPT_LINES)
        self._keyboard = keyboard

    def write_process_input(self, data: str) -> None:
        os.write(self._keyboard, data.encode())


class Terminal:
    """``cyllama`` in a terminal of its own; leaving the ``with`` block ends it.

    Args:
        *arguments: Of the command.
        env: More variables of its environment. What is typed in chats is kept in an empty folder by default.
        columns: Width of the terminal.
        lines: Its height.

    Attributes:
        output: All that was written to it, with the commands for the terminal.
    """

    def __init__(self, *arguments: str, env: dict[str, str] | None = None, columns: int = 200, lines: int = 50) -> None:
        self._keyboard, screen = pty.openpty()
        fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._state = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *arguments],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            env={
                **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")},
                "TERM": "xterm-256color",
                "PYTHONIOENCODING": "utf-8",
                "XDG_STATE_HOME": self._state.name,
                **(env or {}),
            },
            start_new_session=True,
        )
        os.close(screen)
        self.output = b""
        self._screen = _Screen(self._keyboard, columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._seen = 0  # characters of the text that were expected

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._keyboard)
        self._state.cleanup()

    @property
    def text(self) -> str:
        """What a person sees, and what has left the screen above. A line has spaces up to the width of the terminal."""
        above = ["".join(line[i].data for i in range(self._screen.columns)) for line in self._screen.history.top]
        return "\n".join([*above, *self._screen.display])

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._keyboard, keys.encode())

    def expect(self, text: str | re.Pattern[str]) -> str:
        """Wait until a text is shown, below what was expected before; return what is between them."""
        pattern = re.compile(re.escape(text)) if isinstance(text, str) else text
        deadline = time.monotonic() + _SECONDS
        while (found := pattern.search(self.text, self._seen)) is None:
            ready, _, _ = select.select([self._keyboard], [], [], max(deadline - time.monotonic(), 0))
            if not ready or not self._read():
                shown = "\n".join(line.rstrip() for line in self.text[self._seen :].rstrip().split("\n"))
                raise AssertionError(f"waited for {text!r}, but there was only:\n{shown}")
        before, self._seen = self.text[self._seen : found.start()], found.end()
        return before

    def terminate(self) -> None:
        """End it by SIGTERM."""
        self._process.terminate()

    @property
    def settings(self) -> list[Any]:
        """The settings of the terminal, as the module `termios` has them: echo, and what keys mean."""
        return termios.tcgetattr(self._keyboard)

    @property
    def is_cursor_hidden(self) -> bool:
        """Whether the cursor is hidden."""
        return self._screen.cursor.hidden

    def wait(self) -> int:
        """Wait until it has ended; return the exit code."""
        while self._read():  # output that is not read would keep it from ending
            pass
        return self._process.wait(timeout=_SECONDS)

    def _read(self) -> bytes:
        try:
            data = os.read(self._keyboard, 65536)
        except OSError:  # Linux says so when the other side is closed
            data = b""
        self.output += data
        self._stream.feed(data)
        return data
