"""`cyllama "a prompt"`: one answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from typing_extensions import Unpack

from .. import __version__
from ..chat import ChatResponse
from ..errors import ConfigError
from ..llama import llama_cpp
from ..llm import LLM
from ..options import split_chat_options
from ..response import Response
from .options import AnswerFlags, GpuLayersOption, ModelOption, PrefillOption, VerboseOption, flag, with_flags
from .terminal import figures, load, note, print_answer, read_stdin


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"cyllama {__version__}, llama.cpp b{llama_cpp.build_number()}")
        raise typer.Exit


@with_flags
def generate(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; read from standard input if left out.")] = None,
    model: ModelOption = None,
    max_tokens: Annotated[int | None, flag("max_tokens", "-n", "--max-tokens")] = None,
    prefill: PrefillOption = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the prompt as it is, without a chat template.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer and its figures as JSON.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Show tokens and speed after the answer.")] = False,
    n_gpu_layers: GpuLayersOption = None,
    verbose: VerboseOption = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
    **flags: Unpack[AnswerFlags],
) -> None:
    """Answer a prompt: cyllama "Tell me a story about a fox"."""
    if prompt is None:
        prompt = read_stdin("there is no prompt: give one as an argument, or on standard input").rstrip("\n")
    of_chat, options = split_chat_options(flags)
    with load(model, verbose=verbose, n_gpu_layers=n_gpu_layers, max_tokens=max_tokens, **options) as llm:
        if not raw and llm.model.chat_template() is not None:
            response = _chat(llm, prompt, prefill, of_chat, shown=not as_json)
        else:
            _check_text_options([*of_chat, *(["prefill"] if prefill is not None else [])])
            response = _continue(llm, prompt, shown=not as_json)
    if as_json:
        print(json.dumps(_to_dict(response), ensure_ascii=False, indent=2))
    if stats:
        note(figures(response))


def _check_text_options(of_chat: list[str]) -> None:
    """Refuse the names of options of a chat where no chat is rendered."""
    if of_chat:
        raise ConfigError(
            f"{', '.join(of_chat)}: options of a chat, but the prompt is continued as it is, without a chat template"
        )


def _chat(llm: LLM, prompt: str, prefill: str | None, options: dict[str, Any], *, shown: bool) -> ChatResponse:
    messages = [{"role": "user", "content": prompt}]
    if prefill:
        messages.append({"role": "assistant", "content": prefill})
    with llm.chat(messages, stream=True, **options) as stream:
        if not shown:
            return stream.read()
        print_answer(stream, prefill)
    return stream.response


def _continue(llm: LLM, prompt: str, *, shown: bool) -> Response:
    with llm(prompt, stream=True) as stream:
        if not shown:
            return stream.read()
        for chunk in stream:
            print(chunk, end="", flush=True)
    print()
    return stream.response


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
