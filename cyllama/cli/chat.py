"""`cyllama chat`: a conversation in the terminal, or through a pipe."""

from __future__ import annotations

import difflib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typing_extensions import Unpack

from ..chat import Message
from ..chat_stream import ChatStream
from ..config import GenerationConfig
from ..errors import ChatTemplateError, ContextSizeError, CyllamaError, PromptError
from ..images import Image
from ..llm import LLM
from ..options import split_chat_options
from .chat_input import Line, keys_kept, make_reader, read_message, to_path
from .conversation import Conversation, check_reads_images, question
from .options import (
    Flags,
    HistoryOption,
    ModelOption,
    PlainOption,
    PrefillOption,
    Setup,
    StatsOption,
    VerboseOption,
    flag,
    with_flags,
)
from .terminal import EXIT_ERROR, cut_by, figures, load, note, out, print_answer, print_error

HELP = """\
/reset            forget what was said; the system message stays (or /clear)
/system TEXT      tell the model this first; without TEXT, show what it is told
/set NAME VALUE   change an option, such as temperature; without NAME, show them
/image FILE       show an image with the next message
/regen            answer the last message again
/save FILE        write the conversation to a file
/load FILE        go on from such a file
/help             show this
/exit             leave, as Ctrl-D does (or /quit, /bye)

Alt-Enter or Ctrl-J begins a new line of a message, and so does Enter behind a
backslash, or between \"""three quotes\""". Up shows what was typed before.
Ctrl-C stops an answer. A message that begins with / needs a space before it."""
LONGEST_NAME = 60
_FULL = "/reset forgets what was said; --n-ctx sets the size of the context."


@with_flags
def chat(
    model: ModelOption = None,
    max_tokens: Annotated[
        int | None, flag("max_tokens", "-n", "--max-tokens", note="By default, an answer may fill the context.")
    ] = None,
    prefill: PrefillOption = None,
    plain: PlainOption = False,
    stats: StatsOption = False,
    history: HistoryOption = True,
    verbose: VerboseOption = False,
    **flags: Unpack[Flags],
) -> None:
    """Chat with a model: every line is a message. Type /help for what else there is."""
    start_chat(Settings(model, max_tokens, prefill, plain, stats, history, verbose, Setup.of(flags)))


@dataclass
class Settings:
    """How a chat runs. The attributes are the options of the command line."""

    model: str | None
    max_tokens: int | None
    prefill: str | None
    plain: bool
    stats: bool
    history: bool
    verbose: bool
    setup: Setup


def start_chat(settings: Settings) -> None:
    """Chat until the input ends.

    Raises:
        Exit: An error was reported, and no person reads it at a terminal.
    """
    setup = settings.setup
    options = {"config": {"max_tokens": settings.max_tokens}, "verbose": settings.verbose, **setup.options}
    with keys_kept(), load(settings.model, adapters=setup.adapters, **options) as llm:
        if llm.model.chat_template() is None:
            raise ChatTemplateError(f"{llm.model_name} has no chat template: use cyllama --raw to continue a text")
        if setup.images:
            check_reads_images(llm)
        conversation = Conversation(llm, setup.system, setup.of_chat, settings.prefill)
        succeeded = _Chat(llm, conversation, settings).run()
    if not succeeded and not sys.stdin.isatty():
        raise typer.Exit(EXIT_ERROR)


class _Chat:
    """Reads messages and commands, and prints the answers.

    Args:
        llm: The model.
        conversation: The conversation that the messages belong to.
        settings: What is shown of answers, and whether what is typed is kept.
    """

    def __init__(self, llm: LLM, conversation: Conversation, settings: Settings) -> None:
        self._llm = llm
        self._conversation = conversation
        self._settings = settings
        self._images = list(settings.setup.images)  # of the next message
        self._succeeded = True
        self._commands: dict[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/clear": self._reset,
            "/system": self._system,
            "/set": self._set,
            "/image": self._image,
            "/regen": self._regenerate,
            "/save": self._save,
            "/load": self._load,
            "/help": self._help,
            "/?": self._help,
            "/exit": self._exit,
            "/quit": self._exit,
            "/bye": self._exit,
        }

    def run(self) -> bool:
        """Answer until the input ends; return whether no error was reported."""
        read_line = make_reader(list(self._commands), keep_history=self._settings.history)
        if sys.stdin.isatty():
            name = self._llm.model_name
            short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
            note(f"{short}. /help shows the commands, Ctrl-D leaves.")
        while True:
            try:
                line = read_message(read_line)
                if line is None:
                    return self._succeeded
                self._handle(line)
            except EOFError:  # of /exit
                return self._succeeded
            except CyllamaError as error:
                self._report(error)
            except KeyboardInterrupt:
                if not sys.stdin.isatty():
                    raise
                note("Ctrl-D or /exit leaves.")

    def _handle(self, line: Line) -> None:
        text = line.text.strip()
        if not line.text.startswith("/") or line.quoted:
            if text:
                self._answer(question(text, self._images))
            return
        name, _, argument = text.partition(" ")
        if name not in self._commands:
            near = difflib.get_close_matches(name, self._commands, n=1)
            hint = f"did you mean {near[0]}?" if near else "/help shows those that there are"
            raise PromptError(f"there is no command {name}: {hint}")
        self._commands[name](argument.strip())

    def _answer(self, asked: Message) -> None:
        with self._conversation.ask(asked) as stream, _stopped_by_ctrl_c(stream):
            print_answer(stream, self._conversation.prefill, plain=self._settings.plain)
        response = stream.response
        if response.message.content or response.message.reasoning_content:
            self._conversation.keep(asked, response.message)
            self._images = []
        if response.finish_reason == "cancelled":
            note("(stopped)")
        elif response.finish_reason == "length":
            limit = self._conversation.options.get("max_tokens", self._llm.config.max_tokens)
            note(cut_by(response.usage.completion_tokens, limit, end=_FULL))
        if self._settings.stats:
            note(figures(response))
        if sys.stdin.isatty() and out.is_terminal:
            out.print()

    def _report(self, error: Exception) -> None:
        self._succeeded = False
        print_error(error)
        if isinstance(error, ContextSizeError):
            note(_FULL)

    # -------------------- commands

    def _reset(self, _: str) -> None:
        self._conversation.reset()
        self._images = []
        note("What was said is forgotten.")

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = text
        note(f"The model is told before everything else: {self._conversation.system or 'nothing'}")

    def _set(self, argument: str) -> None:
        name, _, text = argument.partition(" ")
        options = self._conversation.options
        if text.strip():
            options.update(_parse_option(name, text.strip()))
        elif name:
            raise PromptError(f"/set needs a value: /set {name} VALUE")
        note(", ".join(f"{name} {json.dumps(value)}" for name, value in options.items()) or "No option is set.")

    def _image(self, argument: str) -> None:
        check_reads_images(self._llm)
        image = Image.load(to_path("/image", argument))
        self._images.append(image)
        note(f"An image of {image.width} x {image.height} pixels is shown with the next message.")

    def _regenerate(self, _: str) -> None:
        before = list(self._conversation.messages)
        asked = self._conversation.take_back()
        if asked is None:
            raise PromptError("there is no message yet that could be answered again")
        after = len(self._conversation.messages)
        try:
            self._answer(asked)
        finally:
            if len(self._conversation.messages) == after:  # there is no other answer: the first one stays
                self._conversation.messages = before

    def _save(self, argument: str) -> None:
        path = to_path("/save", argument)
        with _naming(f"cannot write {str(path)!r}"):
            self._conversation.save(path)
        note(f"{self._turns()} saved to {path}")

    def _load(self, argument: str) -> None:
        path = to_path("/load", argument)
        with _naming(f"cannot read {str(path)!r}"):
            is_warm = self._conversation.load(path)
        note(f"{self._turns()} loaded from {path}")
        if not is_warm:
            note("They were saved with another model, so that the next message takes longer.")

    def _help(self, _: str) -> None:
        out.print(HELP, markup=False)

    def _exit(self, _: str) -> None:
        raise EOFError

    def _turns(self) -> str:
        turns = self._conversation.turns
        return f"{turns} turn{'s' if turns != 1 else ''}"


def _parse_option(name: str, text: str) -> dict[str, Any]:
    """Return an option of answers by its name; its value is JSON, or a text.

    Raises:
        CyllamaError: There is no such option, or it has another range.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    of_chat, of_text = split_chat_options({name: value})
    GenerationConfig(**of_text)  # checks the value; those of a chat's options are checked with the next answer
    return of_chat or of_text


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
