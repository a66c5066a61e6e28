"""`cyllama chat`: a conversation in the terminal, or through a pipe."""

from __future__ import annotations

import difflib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from typing_extensions import Unpack

from ..chat import ChatResponse
from ..chat_stream import ChatStream
from ..errors import ChatTemplateError, ContextSizeError, CyllamaError, PromptError
from ..llm import LLM
from ..options import split_chat_options
from .conversation import Conversation
from .options import AnswerFlags, GpuLayersOption, ModelOption, PrefillOption, VerboseOption, flag, with_flags
from .terminal import EXIT_ERROR, decode, figures, load, note, out, print_answer, print_error

with suppress(ImportError):  # with it, input() has line editing and a history
    import readline  # noqa: F401 - importing it is all that input() needs

PROMPT = "> "
HELP = """\
/reset       forget what was said; the system message stays
/save FILE   write the conversation to a file
/load FILE   go on from such a file
/help        show this
/exit        leave, as Ctrl-D does
Ctrl-C stops an answer. A message that begins with / needs a space before it."""


@with_flags
def chat(
    model: ModelOption = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before everything else.")] = None,
    max_tokens: Annotated[
        int | None, flag("max_tokens", "-n", "--max-tokens", note="By default, an answer may fill the context.")
    ] = None,
    prefill: PrefillOption = None,
    stats: Annotated[bool, typer.Option("--stats", help="Show tokens and speed after every answer.")] = False,
    n_gpu_layers: GpuLayersOption = None,
    verbose: VerboseOption = False,
    **flags: Unpack[AnswerFlags],
) -> None:
    """Chat with a model: every line is a message. Type /help for what else there is."""
    of_chat, options = split_chat_options(flags)
    with load(model, verbose=verbose, n_gpu_layers=n_gpu_layers, config={"max_tokens": max_tokens}, **options) as llm:
        if llm.model.chat_template() is None:
            raise ChatTemplateError(f"{llm.model_name} has no chat template: use cyllama --raw to continue a text")
        succeeded = _Chat(llm, Conversation(llm, system, of_chat, prefill), stats=stats).run()
    if not succeeded and not sys.stdin.isatty():
        raise typer.Exit(EXIT_ERROR)


class _Chat:
    """Reads messages and commands, and prints the answers.

    Args:
        llm: The model.
        conversation: The conversation that the messages belong to.
        stats: Whether to show tokens and speed after every answer.
    """

    def __init__(self, llm: LLM, conversation: Conversation, *, stats: bool) -> None:
        self._llm = llm
        self._conversation = conversation
        self._stats = stats
        self._succeeded = True
        self._commands: dict[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/save": self._save,
            "/load": self._load,
            "/help": self._help,
        }

    def run(self) -> bool:
        """Answer until the input ends; return whether no error was reported."""
        if sys.stdin.isatty():
            note(f"{self._llm.model_name}. /help shows what there is beside messages, Ctrl-D leaves.")
        while True:
            try:
                line = _read_line()
                if line is None or line.strip() == "/exit":
                    return self._succeeded
                self._handle(line)
            except CyllamaError as error:
                self._report(error)
            except KeyboardInterrupt:
                if not sys.stdin.isatty():
                    raise
                note("\nCtrl-D or /exit leaves.")

    def _handle(self, line: str) -> None:
        if line.startswith("/"):
            name, _, argument = line.strip().partition(" ")
            if name not in self._commands:
                near = difflib.get_close_matches(name, [*self._commands, "/exit"], n=1)
                hint = f"did you mean {near[0]}?" if near else "/help shows those that there are"
                raise PromptError(f"there is no command {name}: {hint}")
            self._commands[name](argument.strip())
        elif text := line.strip():
            self._answer(text)

    def _answer(self, text: str) -> None:
        with self._conversation.ask(text) as stream, _stopped_by_ctrl_c(stream):
            print_answer(stream, self._conversation.prefill)
        response = stream.response
        if response.message.content or response.message.reasoning_content:
            self._conversation.keep(text, response.message)
        if remark := self._remark(response):
            note(remark)
        if self._stats:
            note(figures(response))

    def _remark(self, response: ChatResponse) -> str | None:
        """Return a note that says why an answer ended, unless the model ended it."""
        if response.finish_reason == "cancelled":
            return "(stopped)"
        if response.finish_reason != "length":
            return None
        if response.usage.completion_tokens == self._llm.config.max_tokens:
            return f"(ended after {self._llm.config.max_tokens} tokens, as -n says)"
        return "(ended: the context is full. /reset empties it; --n-ctx sets its size.)"

    def _report(self, error: Exception) -> None:
        self._succeeded = False
        print_error(error)
        if isinstance(error, ContextSizeError):
            note("/reset forgets what was said; --n-ctx sets the size of the context.")

    def _reset(self, _: str) -> None:
        self._conversation.reset()
        note("What was said is forgotten.")

    def _save(self, argument: str) -> None:
        path = _to_path("/save", argument)
        with _naming(f"cannot write {str(path)!r}"):
            self._conversation.save(path)
        note(f"{self._turns()} saved to {path}")

    def _load(self, argument: str) -> None:
        path = _to_path("/load", argument)
        with _naming(f"cannot read {str(path)!r}"):
            is_warm = self._conversation.load(path)
        note(f"{self._turns()} loaded from {path}")
        if not is_warm:
            note("They were saved with another model, so that the next message takes longer.")

    def _help(self, _: str) -> None:
        out.print(HELP, markup=False)

    def _turns(self) -> str:
        turns = self._conversation.turns
        return f"{turns} turn{'s' if turns != 1 else ''}"


def _read_line() -> str | None:
    """Return the next line, or ``None`` at the end of the input."""
    if not sys.stdin.isatty():
        data = sys.stdin.buffer.readline()
        return decode(data).rstrip("\r\n") if data else None
    try:
        return input(PROMPT)
    except EOFError:
        print()
        return None
    except UnicodeDecodeError as error:
        raise PromptError(f"the line is not valid text: {error}") from None


def _to_path(command: str, argument: str) -> Path:
    if not argument:
        raise PromptError(f"{command} needs the name of a file: {command} FILE")
    return Path(argument).expanduser()


@contextmanager
def _naming(failure: str) -> Iterator[None]:
    """Report an error of the file system by what the user asked for: its own message may name a temporary file."""
    try:
        yield
    except OSError as error:
        raise PromptError(f"{failure}: {error.strerror or error}") from error


@contextmanager
def _stopped_by_ctrl_c(stream: ChatStream) -> Iterator[None]:
    """Let Ctrl-C end an answer instead of the program, if standard input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    previous = signal.signal(signal.SIGINT, lambda *_: stream.cancel())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
