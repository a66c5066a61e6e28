"""`cyllama "a prompt"`: one answer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from typing_extensions import Unpack

from .. import __version__
from ..chat import ChatResponse, Message
from ..errors import ConfigError, PromptError
from ..llama import llama_cpp
from ..llm import LLM
from ..response import Response
from .conversation import check_reads_images, question
from .options import (
    Flags,
    JsonOption,
    ModelOption,
    PlainOption,
    PrefillOption,
    RawOption,
    Setup,
    StatsOption,
    VerboseOption,
    flag,
    with_flags,
)
from .terminal import cut_by, figures, load, note, print_answer, print_text, read_stdin
from .words import check_is_prompt

_MISSING = "there is no prompt: give one as an argument, or on standard input"
_OF_TEXTS = ("response_format",)  # an option of chats that is one of texts as well


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"cyllama {__version__}, llama.cpp b{llama_cpp.build_number()}")
        raise typer.Exit


def _check_prompt(context: typer.Context, prompt: str | None) -> str | None:
    """Refuse a command that stands behind options, where it would be a prompt."""
    if prompt is not None and context.obj:
        check_is_prompt(prompt, context.obj)
    return prompt


@with_flags
def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(help="The prompt; read from standard input if left out.", callback=_check_prompt),
    ] = None,
    model: ModelOption = None,
    max_tokens: Annotated[int | None, flag("max_tokens", "-n", "--max-tokens")] = None,
    prefill: PrefillOption = None,
    raw: RawOption = False,
    as_json: JsonOption = False,
    plain: PlainOption = False,
    stats: StatsOption = False,
    verbose: VerboseOption = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
    **flags: Unpack[Flags],
) -> None:
    """Answer a prompt: cyllama "Tell me a story about a fox"."""
    Answer(model, max_tokens, prefill, raw, as_json, plain, stats, verbose, Setup.of(flags)).to(prompt)


@dataclass
class Answer:
    """How one prompt is answered. The attributes are the options of the command line."""

    model: str | None
    max_tokens: int | None
    prefill: str | None
    raw: bool
    as_json: bool
    plain: bool
    stats: bool
    verbose: bool
    setup: Setup

    def to(self, prompt: str | None) -> None:
        """Answer a prompt, or what is on standard input."""
        if prompt is None:
            prompt = read_stdin(_MISSING).rstrip("\n")
            if not prompt.strip():
                raise PromptError(f"standard input is empty, so {_MISSING}")
        setup = self.setup
        with load(
            self.model,
            verbose=self.verbose,
            adapters=setup.adapters,
            max_tokens=self.max_tokens,
            **setup.options,
        ) as llm:
            chats = not self.raw and llm.model.chat_template() is not None
            response = self._chat(llm, prompt) if chats else self._continue(llm, prompt)
            limit = llm.config.max_tokens
        if self.as_json:
            print(json.dumps(_to_dict(response), ensure_ascii=False, indent=2))
        if response.finish_reason == "length":
            note(cut_by(response.usage.completion_tokens, limit))
        if self.stats:
            note(figures(response))

    def _chat(self, llm: LLM, prompt: str) -> ChatResponse:
        if self.setup.images:
            check_reads_images(llm)
        messages = [] if self.setup.system is None else [Message(role="system", content=self.setup.system)]
        messages.append(question(prompt, self.setup.images))
        if self.prefill:
            messages.append(Message(role="assistant", content=self.prefill))
        with llm.chat(messages, stream=True, **self.setup.of_chat) as stream:
            if self.as_json:
                return stream.read()
            print_answer(stream, self.prefill, plain=self.plain)
        return stream.response

    def _continue(self, llm: LLM, prompt: str) -> Response:
        self._check_text_options()
        with llm(prompt, stream=True, **self.setup.of_chat) as stream:
            if self.as_json:
                return stream.read()
            print_text(stream)
        return stream.response

    def _check_text_options(self) -> None:
        """Refuse options of a chat where no chat is rendered."""
        images = self.setup.images or None
        given = {"prefill": self.prefill, "system": self.setup.system, "image": images, **self.setup.of_chat}
        if wrong := [name for name, value in given.items() if value is not None and name not in _OF_TEXTS]:
            raise ConfigError(
                f"{', '.join(wrong)} cannot be used here: the prompt is continued as it is, without a chat template, "
                "with --raw, and by a model that has none"
            )


def _to_dict(response: Response | ChatResponse) -> dict[str, Any]:
    reasoning = response.message.reasoning_content if isinstance(response, ChatResponse) else ""
    prefill = response.prefill if isinstance(response, ChatResponse) else ""
    return {
        **({"prefill": prefill} if prefill else {}),
        "text": response.text,
        **({"reasoning_content": reasoning} if reasoning else {}),
        "finish_reason": response.finish_reason,
        "usage": asdict(response.usage) | {"total_tokens": response.usage.total_tokens},
        "timings": asdict(response.timings),
        "model": response.model,
    }
