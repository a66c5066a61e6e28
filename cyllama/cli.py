"""The ``cyllama`` command."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from . import __version__
from .errors import CyllamaError, PromptError
from .llama import llama_cpp
from .llm import LLM
from .response import Response

EXIT_ERROR = 2
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

ModelOption = Annotated[str | None, typer.Option("-m", "--model", help="GGUF file; the embedded tiny-chat by default.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"cyllama {__version__}, llama.cpp b{llama_cpp.build_number()}")
        raise typer.Exit


def generate(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; read from standard input if left out.")] = None,
    model: ModelOption = None,
    max_tokens: Annotated[int | None, typer.Option("-n", "--max-tokens", help="Most tokens to generate.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the most likely token.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the answer reproducible.")] = None,
    n_ctx: Annotated[int | None, typer.Option("--n-ctx", help="Size of the context in tokens.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the prompt as it is, without a chat template.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer and its figures as JSON.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Show tokens and speed after the answer.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show llama.cpp's log.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Answer a prompt: cyllama "Tell me a story about a fox".

    `cyllama info` shows the build, the devices and a model's metadata.
    """
    options = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed, "n_ctx": n_ctx}
    given = {name: value for name, value in options.items() if value is not None}
    text = _read_prompt(prompt)
    with _load(model, verbose=verbose, **given) as llm:
        if not raw and llm.model.chat_template() is not None:
            text = llm.render([{"role": "user", "content": text}])
        response = llm(text) if as_json else _print_stream(llm, text)
    if as_json:
        print(json.dumps(_to_dict(response), ensure_ascii=False, indent=2))
    if stats:
        err.print(_figures(response), style="dim")


def info(model: ModelOption = None) -> None:
    """Show this build, what it can run on, and a model's metadata."""
    build = Table("build", "", show_header=False, box=None)
    build.add_row("cyllama", __version__)
    build.add_row("llama.cpp", f"b{llama_cpp.build_number()} ({llama_cpp.compiler()})")
    build.add_row("backends", ", ".join(llama_cpp.backends()))
    build.add_row("features", escape(llama_cpp.system_info().strip()))
    for device in llama_cpp.devices():
        memory = f"{device.memory_free / 2**30:.1f} of {device.memory_total / 2**30:.1f} GiB free"
        build.add_row("device", escape(f"{device.name}: {device.description} ({device.type}), {memory}"))
    out.print(build)
    with _load(model) as llm:
        table = Table("key", "value", show_header=False, box=None)
        table.add_row("file", escape(llm.model_path))
        table.add_row("model", escape(f"{llm.model.desc}, {llm.model.n_params:,} parameters, {llm.model.size:,} bytes"))
        table.add_row("chat template", "yes" if llm.model.chat_template() is not None else "no")
        for key, value in sorted(llm.model.metadata.items()):
            table.add_row(escape(key), escape(_shorten(value)))
        out.print()
        out.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: ``cyllama info`` for information, everything else is a prompt."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command, name = generate_app, "cyllama"
    if arguments[:1] == ["info"]:
        command, name, arguments = info_app, "cyllama info", arguments[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows what it can
    try:
        command(arguments, prog_name=name)
    except CyllamaError as error:
        err.print(f"cyllama: {escape(str(error))}")
        sys.exit(EXIT_ERROR)


def _make_app(function: Callable[..., None]) -> typer.Typer:
    settings = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=settings)
    app.command()(function)
    return app


generate_app, info_app = _make_app(generate), _make_app(info)


@contextmanager
def _load(model: str | None, *, verbose: bool = False, **options: Any) -> Iterator[LLM]:
    """Load a model behind a progress bar, which is shown on a terminal only."""
    columns = (TextColumn("loading"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal or verbose) as progress:
        task = progress.add_task("load", total=1.0)
        llm = LLM(
            model, verbose=verbose, progress_callback=lambda done: progress.update(task, completed=done), **options
        )
    with llm:
        yield llm


def _read_prompt(prompt: str | None) -> str:
    if prompt is not None:
        return prompt
    if sys.stdin.isatty():
        raise PromptError("there is no prompt: give one as an argument, or on standard input")
    data = sys.stdin.buffer.read()
    try:
        return data.decode().rstrip("\n")
    except UnicodeDecodeError as error:
        raise PromptError(f"standard input is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None


def _print_stream(llm: LLM, prompt: str) -> Response:
    with llm(prompt, stream=True) as stream:
        for chunk in stream:
            print(chunk, end="", flush=True)
    print()
    return stream.response


def _to_dict(response: Response) -> dict[str, Any]:
    return {
        "text": response.text,
        "finish_reason": response.finish_reason,
        "usage": asdict(response.usage) | {"total_tokens": response.usage.total_tokens},
        "timings": asdict(response.timings),
        "model": response.model,
    }


def _figures(response: Response) -> str:
    usage, timings = response.usage, response.timings
    speed = max(usage.completion_tokens - 1, 0) / timings.generation if timings.generation else 0.0
    return (
        f"{response.model}: {usage.prompt_tokens} prompt tokens in {timings.prompt * 1000:.0f} ms, "
        f"{usage.completion_tokens} generated at {speed:.0f} tokens/s, finished by {response.finish_reason!r}"
    )


def _shorten(value: str, limit: int = 100) -> str:
    value = value.replace("\n", "\\n")
    return value if len(value) <= limit else f"{value[:limit]}... ({len(value):,} characters)"


if __name__ == "__main__":
    main()
