"""Options that several commands have. Their help is the text of the option of cyllama that each of them sets."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer
from typing_extensions import TypedDict

from ..config import ModelConfig
from ..declaration import declaration
from ..options import find_option

_PANEL = "Answer"  # the part of the help that lists them

ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "-m", "--model", help="GGUF file, or a model on the hub: owner/repo:Q4_K_M. The embedded tiny-chat by default."
    ),
]
VerboseOption: TypeAlias = Annotated[bool, typer.Option("-v", "--verbose", help="Show llama.cpp's log.")]
PrefillOption: TypeAlias = Annotated[
    str | None, typer.Option("--prefill", help="What the answer begins with.", rich_help_panel=_PANEL)
]


def flag(name: str, *flags: str, note: str = "", **settings: Any) -> Any:
    """Return the flag of an option of calls.

    Args:
        name: The option, as `LLM.chat` has it.
        *flags: How it is written; by default ``--`` and the name with hyphens.
        note: What the help says besides the option's own text.
        **settings: More arguments of ``typer.Option``.
    """
    text = f"{find_option(name).text} {note}".strip().replace("`", "")
    return typer.Option(*flags, help=text, rich_help_panel=_PANEL, **settings)


def config_flag(name: str, **settings: Any) -> Any:
    """Return the flag of an option of :class:`ModelConfig`: ``--`` and its name with hyphens.

    Args:
        name: The option.
        **settings: More arguments of ``typer.Option``.
    """
    said = declaration(ModelConfig.model_fields[name])
    text = f"{said.text} [default: {said.default}]".replace("`", "")
    return typer.Option(f"--{name.replace('_', '-')}", help=text, show_default=False, **settings)


def _parse_layers(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text  # ModelConfig checks it


GpuLayersOption: TypeAlias = Annotated[Any, config_flag("n_gpu_layers", metavar="auto|N", parser=_parse_layers)]


def _parse_variables(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        variables = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"not JSON: {error}") from error
    if not isinstance(variables, dict):
        raise typer.BadParameter(f"expected a JSON object, not {text:.80}")
    return variables


class AnswerFlags(TypedDict):
    """Flags of every command that answers: see :func:`with_flags`."""

    temperature: Annotated[float | None, flag("temperature")]
    seed: Annotated[int | None, flag("seed")]
    n_ctx: Annotated[int | None, flag("n_ctx", "--n-ctx")]
    enable_thinking: Annotated[bool | None, flag("enable_thinking", "--thinking/--no-thinking")]
    reasoning_effort: Annotated[str | None, flag("reasoning_effort")]
    reasoning_budget: Annotated[int | None, flag("reasoning_budget")]
    chat_template_kwargs: Annotated[
        Any, flag("chat_template_kwargs", "--chat-template-kwargs", metavar="JSON", parser=_parse_variables)
    ]


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose ``**flags: Unpack[AnswerFlags]`` are parameters of their own, as typer needs them.

    Those that were not given are left out of ``flags``.
    """
    own = list(inspect.signature(command).parameters.values())[:-1]
    hints = get_type_hints(command, include_extras=True)
    flags = get_type_hints(AnswerFlags, include_extras=True)

    @wraps(command)
    def wrapper(**arguments: Any) -> None:
        command(**{name: value for name, value in arguments.items() if name not in flags or value is not None})

    parameters = [each.replace(annotation=hints[each.name]) for each in own]
    for name, hint in flags.items():
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint))
    wrapper.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue] - a function takes any attribute
    wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapper
