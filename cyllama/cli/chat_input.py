"""What a person types in a chat, or what comes through a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import PromptError
from .terminal import decode

if TYPE_CHECKING:
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT, MORE = "> ", ". "  # of a message, and of its other lines
QUOTES = '"""'
HISTORY_BYTES = 2**20  # of the file that keeps what is typed; from there on, its older half is dropped
ReadLine = Callable[[str], str | None]


class Line(NamedTuple):
    """A message or a command.

    Attributes:
        text: The text, which may have several lines.
        quoted: Whether it stood between quotes, so that it is a message whatever it begins with.
    """

    text: str
    quoted: bool = False


def read_message(read_line: ReadLine) -> Line | None:
    r"""Return the next message or command, or ``None`` at the end of the input.

    It is one line, unless a backslash ends the line, or three quotes begin it: then it goes on to the next three.

    >>> lines = iter(['One', 'Two \\', 'lines', '\"\"\"/not', 'a command', '\"\"\"', None])
    >>> read_message(lambda prompt: next(lines)).text
    'One'
    >>> read_message(lambda prompt: next(lines)).text
    'Two \nlines'
    >>> read_message(lambda prompt: next(lines))
    Line(text='/not\na command', quoted=True)

    Args:
        read_line: Returns the next line, or ``None``; it is given the prompt to show.
    """
    text = read_line(PROMPT)
    if text is None:
        return None
    if not text.lstrip().startswith(QUOTES):
        while text.endswith("\\"):
            text = f"{text[:-1]}\n{read_line(MORE) or ''}"
        return Line(text)
    text = text.lstrip().removeprefix(QUOTES)
    while QUOTES not in text and (more := read_line(MORE)) is not None:
        text += f"\n{more}"
    before, _, after = text.partition(QUOTES)
    return Line(f"{before}{after}".strip("\n"), quoted=True)


def make_reader(commands: Sequence[str], *, keep_history: bool) -> ReadLine:
    """Return what reads the lines of standard input: with an editor and a history at a terminal.

    Args:
        commands: What the tab key completes.
        keep_history: Whether a file keeps what is typed, for other chats.
    """
    if not sys.stdin.isatty():
        return _read_from_pipe
    from prompt_toolkit import PromptSession  # here, because it takes 100 ms, and only terminals need it
    from prompt_toolkit.completion import WordCompleter

    session: PromptSession[str] = PromptSession(
        history=_open_history() if keep_history else None,
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
        enable_history_search=True,
        key_bindings=_keys(),
        multiline=True,
        prompt_continuation=lambda _, __, wraps: " " * len(MORE) if wraps else MORE,
    )

    def read_line(prompt: str) -> str | None:
        try:
            return session.prompt(prompt)
        except EOFError:
            return None

    return read_line


def _read_from_pipe(_: str) -> str | None:
    data = sys.stdin.buffer.readline()
    return decode(data).rstrip("\r\n") if data else None


def _keys() -> KeyBindings:
    """Return what Enter does, and the keys that begin a new line instead."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline()

    return keys


def history_file() -> Path:
    """Return the file that keeps what is typed in chats."""
    folder = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (folder if folder.is_absolute() else Path.home() / ".local/state") / "cyllama/chat_history"


def _open_history() -> History | None:
    """Return the history in the file, or ``None`` where there can be none."""
    from prompt_toolkit.history import FileHistory

    class Lenient(FileHistory):
        """Goes on without a file that can no longer be written, such as one on a full disk."""

        def store_string(self, string: str) -> None:
            with suppress(OSError):
                super().store_string(string)

    try:
        path = history_file()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("ab"):
            _shorten(path)
            return Lenient(path)
    except (OSError, RuntimeError):  # no such folder, or no home
        return None


def _shorten(path: Path) -> None:
    """Drop the older half of a history that has become too large. An entry begins with a line of its time."""
    if path.stat().st_size <= HISTORY_BYTES:
        return
    half = path.read_bytes()[-HISTORY_BYTES // 2 :]
    newer = path.with_name(f"{path.name}.{os.getpid()}")
    newer.touch(mode=0o600)
    newer.write_bytes(half[begin:] if (begin := half.find(b"\n# ")) >= 0 else b"")
    newer.replace(path)


@contextmanager
def keys_kept() -> Iterator[None]:
    """Keep what is typed while nothing reads it off the screen: what reads next gets it."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    during = [*before]
    during[0] &= ~termios.ICRNL  # Enter stays Enter
    during[3] &= ~(termios.ECHO | termios.ICANON)  # Ctrl-C stays a signal
    termios.tcsetattr(sys.stdin, termios.TCSANOW, during)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def to_path(command: str, argument: str) -> Path:
    """Return the file that a command names.

    Raises:
        PromptError: It names none.
    """
    if not argument:
        raise PromptError(f"{command} needs the name of a file: {command} FILE")
    return Path(argument).expanduser()
