"""Options that several commands have. Their help is the text of the option of cyllama that each of them sets."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer
from typing_extensions import TypedDict

from ..config import ModelConfig
from ..declaration import declaration
from ..images import Image
from ..options import find_option, split_chat_options

_PANEL = "Answer"  # the parts of the help that list them
_MODEL_PANEL = "Model"

ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "-m", "--model", help="GGUF file, or a model on the hub: owner/repo:Q4_K_M. The embedded tiny-chat by default."
    ),
]
VerboseOption: TypeAlias = Annotated[bool, typer.Option("-v", "--verbose", help="Show llama.cpp's log.")]
StatsOption: TypeAlias = Annotated[bool, typer.Option("--stats", help="Show tokens and speed after every answer.")]
PrefillOption: TypeAlias = Annotated[
    str | None, typer.Option("--prefill", help="What the answer begins with.", rich_help_panel=_PANEL)
]
PlainOption: TypeAlias = Annotated[
    bool, typer.Option("--plain", help="Show the text of answers as it is, not as Markdown. Only terminals show that.")
]
RawOption: TypeAlias = Annotated[
    bool, typer.Option("--raw", help="Continue the prompt as it is, without a chat template.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the answer and its figures as JSON.")]
HistoryOption: TypeAlias = Annotated[
    bool, typer.Option("--history/--no-history", help="Keep what is typed in a file, for the next chats.")
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


def config_flag(name: str, *flags: str, **settings: Any) -> Any:
    """Return the flag of an option of :class:`ModelConfig`.

    Args:
        name: The option.
        *flags: How it is written; by default ``--`` and the name with hyphens.
        **settings: More arguments of ``typer.Option``.
    """
    said = declaration(ModelConfig.model_fields[name])
    text = (said.description if said.default is None else f"{said.text} [default: {said.default}]").replace("`", "")
    flags = flags or (f"--{name.replace('_', '-')}",)
    return typer.Option(*flags, help=text, show_default=False, rich_help_panel=_MODEL_PANEL, **settings)


def _parse_layers(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text  # ModelConfig checks it


GpuLayersOption: TypeAlias = Annotated[
    Any, config_flag("n_gpu_layers", "-ngl", "--n-gpu-layers", metavar="auto|N", parser=_parse_layers)
]


def _parse_variables(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    variables = _parse_json(text)
    if not isinstance(variables, dict):
        raise typer.BadParameter(f"expected a JSON object, not {text:.80}")
    return variables


def _parse_schema(text: str | None) -> dict[str, Any] | str | None:
    """Return the schema that a text or a file holds."""
    if text is None or text == "json":
        return text
    if not text.lstrip().startswith("{"):
        try:
            text = Path(text).expanduser().read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise typer.BadParameter(f"neither a JSON object nor a file with one, {text:.80}: {reason}") from error
    schema = _parse_json(text)
    if not isinstance(schema, dict):
        raise typer.BadParameter(f"expected a JSON object, not {text:.80}")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"not JSON, {text:.80}: {error}") from error


def parse_adapter(text: str) -> tuple[str, float]:
    """Return the file of an adapter and its scale, which may follow behind ``=``.

    >>> parse_adapter("pirate.gguf"), parse_adapter("pirate.gguf=0.5")
    (('pirate.gguf', 1.0), ('pirate.gguf', 0.5))
    """
    path, separator, scale = text.rpartition("=")
    try:
        return (path, float(scale)) if separator else (text, 1.0)
    except ValueError:
        return text, 1.0


class ModelFlags(TypedDict):
    """Flags of every command that generates: how the model is loaded. See :func:`with_flags`."""

    n_gpu_layers: GpuLayersOption
    n_threads: Annotated[int | None, config_flag("n_threads", "-t", "--threads")]
    draft_model: Annotated[str | None, config_flag("draft_model", "-md", "--draft-model")]


class AnswerFlags(TypedDict):
    """Flags of every command that answers: see :func:`with_flags`."""

    temperature: Annotated[float | None, flag("temperature")]
    top_k: Annotated[int | None, flag("top_k")]
    top_p: Annotated[float | None, flag("top_p")]
    min_p: Annotated[float | None, flag("min_p")]
    repeat_penalty: Annotated[float | None, flag("repeat_penalty")]
    seed: Annotated[int | None, flag("seed")]
    n_ctx: Annotated[int | None, flag("n_ctx", "-c", "--n-ctx")]
    speculation: Annotated[str | None, flag("speculation")]
    response_format: Annotated[
        Any,
        flag(
            "response_format",
            "--json-schema",
            note="Here: json, a JSON schema, or the name of a file with one.",
            metavar="SCHEMA",
            parser=_parse_schema,
        ),
    ]
    enable_thinking: Annotated[bool | None, flag("enable_thinking", "--thinking/--no-thinking")]
    reasoning_effort: Annotated[str | None, flag("reasoning_effort")]
    reasoning_budget: Annotated[int | None, flag("reasoning_budget")]
    chat_template_kwargs: Annotated[
        Any, flag("chat_template_kwargs", "--chat-template-kwargs", metavar="JSON", parser=_parse_variables)
    ]


class Flags(AnswerFlags, ModelFlags):
    """All flags of a command that answers."""

    system: Annotated[
        str | None, typer.Option(help="What the model is told before everything else.", rich_help_panel=_PANEL)
    ]
    projector: Annotated[str | None, config_flag("projector", metavar="FILE|auto")]
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Image to ask about; can be repeated.", rich_help_panel=_PANEL),
    ]
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="LoRA adapter, FILE or FILE=SCALE; can be repeated.", rich_help_panel=_MODEL_PANEL
        ),
    ]


@dataclass
class Setup:
    """What the flags of a command that answers say.

    Attributes:
        system: What the model is told before everything else.
        adapters: The files of LoRA adapters, and their scales.
        images: What is shown with the first message.
        of_chat: Options that only chats have.
        options: Options of :class:`GenerationConfig` and :class:`ModelConfig`.
    """

    system: str | None = None
    adapters: dict[str, float] = field(default_factory=dict)
    images: tuple[Image, ...] = ()
    of_chat: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, flags: Mapping[str, Any]) -> Setup:
        """Return what these flags say."""
        given = dict(flags)
        system, adapters = given.pop("system", None), dict(map(parse_adapter, given.pop("lora", None) or ()))
        images = tuple(map(Image.load, given.pop("image", None) or ()))
        of_model = {name: given.pop(name) for name in (*ModelFlags.__annotations__, "projector") if name in given}
        of_chat, options = split_chat_options(given)
        return cls(system, adapters, images, of_chat, options | of_model)


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose ``**flags: Unpack[...]`` are parameters of their own, as typer needs them.

    Those that were not given are left out of ``flags``.
    """
    # Not get_type_hints: on Python 3.10, that makes what has the default None an Optional of what typer looks for.
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    (kind,) = own.pop().annotation.__args__  # what is unpacked
    flags = get_type_hints(kind, include_extras=True)

    @wraps(command)
    def wrapper(**arguments: Any) -> None:
        command(**{name: value for name, value in arguments.items() if name not in flags or value is not None})

    parameters = [
        *own,
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
            for name, hint in flags.items()
        ),
    ]
    wrapper.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue] - a function takes any attribute
    wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapper
