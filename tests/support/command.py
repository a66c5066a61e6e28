"""The command line as a script runs it, and as a person at a terminal does."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import NoReturn

from typing_extensions import Self

CTRL_C, CTRL_D, UP, ENTER = "\x03", "\x04", "\x1b[A", "\r"

_SECONDS = 120  # after which something hangs
_TAKE_TERMINAL = """\
import fcntl, runpy, signal, termios
signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, a shell ignores it
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal
runpy.run_module("cyllama", run_name="__main__", alter_sys=True)
"""


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


class Terminal:
    """``cyllama`` in a terminal of its own; leaving the ``with`` block ends it.

    Args:
        *arguments: Of the command.
    """

    def __init__(self, *arguments: str) -> None:
        self._keyboard, screen = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *arguments],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,
        )
        os.close(screen)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._keyboard)

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._keyboard, keys.encode())

    def press_until(self, keys: str, text: str) -> None:
        """Press keys again and again until a text is shown: readline overlooks a signal that comes before it waits."""
        for _ in range(_SECONDS):
            self.press(keys)
            if self._shows(text, seconds=1) is not None:
                return
        self._fail(text)

    def expect(self, text: str) -> str:
        """Wait until a text is shown; return what was shown before it."""
        before = self._shows(text, seconds=_SECONDS)
        return self._fail(text) if before is None else before

    def _shows(self, text: str, seconds: float) -> str | None:
        wanted, deadline = text.encode(), time.monotonic() + seconds
        while wanted not in self._unread:
            ready, _, _ = select.select([self._keyboard], [], [], max(deadline - time.monotonic(), 0))
            data = self._read() if ready else b""
            if not data:
                return None
            self._unread += data
        before, _, self._unread = self._unread.partition(wanted)
        return before.decode(errors="replace")

    def _fail(self, text: str) -> NoReturn:
        raise AssertionError(f"waited for {text!r}, but there was only {self._unread.decode(errors='replace')!r}")

    def wait(self) -> int:
        """Wait until it has ended; return the exit code."""
        while self._read():  # output that is not read would keep it from ending
            pass
        return self._process.wait(timeout=_SECONDS)

    def _read(self) -> bytes:
        try:
            return os.read(self._keyboard, 65536)
        except OSError:  # Linux says so when the other side is closed
            return b""
