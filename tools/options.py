"""Write the files that are generated from the declarations of options, or check that they are up to date.

    python tools/options.py          # writes them; `make options` does this
    python tools/options.py --check  # names those that are out of date, and ends with 1 if there are any

Options are declared in `cyllama/config.py` (those of configs) and in `cyllama/options.py` (those that only calls have).
Parts of `LLM.chat`'s docstring and of the page about the command are generated as well: see `files`.
What LangChain's classes take besides, because other providers do, is at the end of this file.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from typer.models import OptionInfo

from cyllama.cli import COMMANDS, generate
from cyllama.config import FLOAT_MAX, SAMPLERS, Config, GenerationConfig, ModelConfig
from cyllama.declaration import Option, declaration
from cyllama.options import call_options

ROOT = Path(__file__).parents[1]
_NOTE = "Generated from cyllama/config.py and cyllama/options.py by `make options`; do not edit."
_COLUMNS = 120


class Declared(NamedTuple):
    """An option with its name and type.

    Attributes:
        name: Its name.
        kind: Its type, as :mod:`typing` has it.
        said: What is said of it.
        limits: The smallest and the largest value, as words; empty where any value of the type is valid.
    """

    name: str
    kind: Any
    said: Option
    limits: str = ""


def of_config(config: type[Config]) -> list[Declared]:
    """Return the options of a config."""
    schemas = config.model_json_schema()["properties"]
    return [
        Declared(name, field.annotation, declaration(field), limits_of(schemas[name]))
        for name, field in config.model_fields.items()
    ]


def of_calls() -> list[Declared]:
    """Return the options that calls have besides those of :class:`GenerationConfig`."""
    return [
        Declared(name, kind, said, f"{said.bounds[0]} to {said.bounds[1]}" if said.bounds else "")
        for name, (kind, said) in call_options().items()
    ]


def limits_of(schema: Mapping[str, Any]) -> str:
    """Return the limits in a JSON schema of a number, of ``None`` or a number, or of a list or dict of numbers."""
    inner = [schema, *schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties")]
    for each in inner:
        if isinstance(each, dict) and each.get("type") in ("integer", "number") and len(each) > 1:
            low, high = each.get("minimum"), each.get("maximum", each.get("exclusiveMaximum", 0) - 1)
            if "exclusiveMinimum" in each:
                return f"more than {each['exclusiveMinimum']}"
            if low is not None and low > -FLOAT_MAX:
                return f"{low} or more" if high == FLOAT_MAX else f"{low} to {high}"
    return ""


# ------------------------------------------------------------------------------------------------------------- types


def source_of(kind: Any, *, mapping: str = "Mapping", literals: bool = True) -> str:
    """Return a type as Python source.

    Args:
        kind: The type.
        mapping: What to write for a dict.
        literals: Whether to write literals, and not their common type.
    """
    origin, args = get_origin(kind), get_args(kind)

    def inner(each: Any) -> str:
        return source_of(each, mapping=mapping, literals=literals)

    if origin is Annotated:
        return inner(args[0])
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(inner(each) for each in args))
    if origin is Literal:
        if not literals:
            return type(args[0]).__name__
        return "Sampler" if args == SAMPLERS else f"Literal[{', '.join(shown(value) for value in args)}]"
    if origin is not None:
        name = mapping if origin in (dict, Mapping) else origin.__name__
        return f"{name}[{', '.join(inner(each) for each in args)}]"
    if kind is ...:
        return "..."
    return "None" if kind in (None, NoneType) else kind.__name__


def shown(value: Any) -> str:
    """Return a value as Python source with double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    return repr(value)


# ------------------------------------------------------------------------------------------- generation_options.py

_TYPED_DICT = f'''"""The options of :class:`GenerationConfig` by name, for type checkers and editors.

{_NOTE}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from typing_extensions import TypedDict

from .config import Sampler


class GenerationOptions(TypedDict, total=False):
    """What every call takes: the options of :class:`GenerationConfig`, where they are described."""

'''


def typed_dict(options: Iterable[Declared]) -> str:
    """Return the source of `cyllama/generation_options.py`."""
    lines = []
    for option in options:
        also = f"{ALSO[option.name]} | " if option.name == "stop_sequences" else ""
        names = [option.name, option.said.other_name] if option.said.other_name else [option.name]
        lines += [f"    {name}: {also}{source_of(option.kind)}\n" for name in names]
    return _TYPED_DICT + "".join(lines)


# ----------------------------------------------------------------------------------------------------- _fields.py

_FIELDS = f'''"""The arguments that LangChain's classes take by cyllama's own names.

`None` leaves an option as cyllama has it: see the defaults.

{_NOTE}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict


class LoadingFields(BaseModel):
    """How a model is loaded and computed: the options of `cyllama.ModelConfig`."""

    model_config = ConfigDict(protected_namespaces=())
'''
_GENERATION_FIELDS = '''

class GenerationFields(BaseModel):
    """How text is generated: the options of `cyllama.GenerationConfig`."""
'''
_CHAT_FIELDS = '''

class ChatFields(BaseModel):
    """How a chat is rendered and answered: options of `cyllama.LLM.chat`."""
'''


def langchain_fields(loading: Iterable[Declared], generation: Iterable[Declared], calls: Iterable[Declared]) -> str:
    """Return the source of `integrations/langchain_cyllama/_fields.py`."""
    of_chats = (option for option in calls if option.name not in NOT_CHAT_FIELDS)
    parts: list[str] = []
    for head, options in ((_FIELDS, loading), (_GENERATION_FIELDS, generation), (_CHAT_FIELDS, of_chats)):
        parts += [head, *map(_field, options)]
    return "".join(parts)


def _field(option: Declared) -> str:
    kinds = [*source_of(option.kind, mapping="dict", literals=False).split(" | ")]
    kinds = [kind for kind in (*kinds, ALSO.get(option.name)) if kind not in (None, "None")]
    text = _docstring(_langchain_text(option.name, option.said))
    return f"\n    {option.name}: {' | '.join(kinds)} | None = None\n{text}\n"


def _langchain_text(name: str, said: Option) -> str:
    """Return what an argument does. Its ``None`` is the default, so another value stands for cyllama's ``None``."""
    text = REPLACED.get(name, said.text)
    if name in FOR_NONE:
        or_none = ", or `None`" if said.default is None else ""
        text += f" {FOR_NONE[name]}{or_none}: {said.none}."
    elif said.none and said.default is None and name not in REPLACED:
        text = said.description
    if name in MORE:
        text += f" {MORE[name]}"
    default = DEFAULTS.get(name, said.default)
    return text if default is None else f"{text} (Default: `{shown(default)}`)"


def _docstring(text: str) -> str:
    quotes = 'r"""' if "\\" in text else '"""'
    fill = textwrap.TextWrapper(
        _COLUMNS,
        initial_indent=f"    {quotes}",
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return fill.fill(f'{text}"""')


# ----------------------------------------------------------------------------------------------------- options.md

_PAGE = f"""\
<!-- {_NOTE} -->

# Options

Every option by name, with its type and the values that are valid, its default, its unit, what it does, and the paper or
the part of llama.cpp that it is taken from: `llama_model_params` and `llama_context_params` stand for the parameter of
the same name in them. An option without a source is cyllama's own.

## Generation

The fields of `GenerationConfig`. Each can be given to `LLM(...)` and to a single call, by its name or as part of a
`config`.

Of several values the first is used: what the call gives; what `LLM(...)` was given; what the model's file recommends
(`general.sampling.*`, see `LLM.recommended_sampling`); the default below, which is llama.cpp's for sampling.

"""
_PAGE_OF_CALLS = """
## Calls

What calls take besides. Calls that continue a text take `grammar` and `response_format`; those that wait for the whole
text also take `max_attempts`. Chats take all of them, and `LLM.render` takes those that the prompt depends on.

"""
_PAGE_OF_LOADING = """
## Loading

The fields of `ModelConfig`: how a model is loaded and computed. Each can be given to `LLM(...)`, by its name or as part
of a `model_config`. The names and defaults are llama.cpp's.

"""
_TABLE = """\
| option | type and range | default | unit | what it does | source |
|---|---|---|---|---|---|
"""


def page(loading: Iterable[Declared], generation: Iterable[Declared], calls: Iterable[Declared]) -> str:
    """Return the text of `docs/options.md`."""
    sections = ((_PAGE, generation), (_PAGE_OF_CALLS, calls), (_PAGE_OF_LOADING, loading))
    return "".join(f"{head}{_TABLE}{''.join(map(_row, options))}" for head, options in sections)


def _row(option: Declared) -> str:
    said = option.said
    kind = _kind_in_words(option.kind) + (f", {option.limits}" if option.limits else "")
    cells = (f"`{option.name}`", kind, f"`{shown(said.default)}`", said.unit, said.description, _linked(said.source))
    return f"| {' | '.join(cells)} |\n"


def _kind_in_words(kind: Any) -> str:
    """Return a type without vertical bars, which would end the cell of a table."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _kind_in_words(args[0])
    if origin is Literal:
        *others, last = (f"`{shown(value)}`" for value in args)
        return f"{', '.join(others)} or {last}" if others else last
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_kind_in_words(each) for each in args))
    if origin is Sequence and get_origin(args[0]) is Literal:
        return f"sequence of {_kind_in_words(args[0])}"
    return f"`{source_of(kind, mapping='dict').replace(' | ', ' or ')}`"


def _linked(source: str) -> str:
    source = re.sub(r"\b((?:llama|common|ggml)_[\w.]+)", r"`\1`", source)
    source = re.sub(r"\barXiv:([\d.]+\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)
    return re.sub(r"\b([\w-]+/[\w.-]+)#(\d+)", r"[\1#\2](https://github.com/\1/pull/\2)", source)


# ------------------------------------------------------------------------------------------ the docstring of LLM.chat

_OPTIONS_OF_CHATS = "            **options: Options of :class:`GenerationConfig` by name, and those of chats:\n"


def chat_docstring(source: str, calls: Iterable[Declared]) -> str:
    """Return the source of `cyllama/llm.py` with what is declared of the options of chats."""
    before, head, rest = source.partition(_OPTIONS_OF_CHATS)
    if not head:
        raise ValueError("the docstring of LLM.chat has no list of options")
    fill = textwrap.TextWrapper(
        _COLUMNS,
        initial_indent=16 * " ",
        subsequent_indent=20 * " ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    entries = (fill.fill(f"{option.name}: {option.said.description}".replace("`", "``")) for option in calls)
    return before + head + "\n".join(entries) + "\n" + rest[rest.index("\n        Returns:") :]


# ----------------------------------------------------------------------------------------------------- command-line.md

_FLAGS = f"""\
## Options

<!-- {_NOTE.replace("cyllama/config.py and cyllama/options.py", "the commands in cyllama/cli")} -->

| option | of | what it does |
|---|---|---|
"""
_VALUES = {int: "N", float: "NUMBER", str: "TEXT"}


def flags_of(command: Callable[..., None]) -> Iterator[tuple[str, str]]:
    """Yield the flags of a command, as they are written, and what its help says of each."""
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        hint = parameter.annotation
        kind, *info = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if not info or not isinstance(info[0], OptionInfo):
            continue
        kinds = [each for each in get_args(kind) if each is not NoneType] or [kind]
        if get_origin(kinds[0]) is list:
            kinds = [get_args(kinds[0])[0]]
        value = "" if kinds == [bool] else f" {info[0].metavar or _VALUES.get(kinds[0], 'VALUE')}"
        long = f"--{name.replace('_', '-')}"
        given = [each for each in (info[0].default, *(info[0].param_decls or ())) if isinstance(each, str)]
        given = given or ([f"{long}/--no-{long[2:]}"] if kinds == [bool] else [long])
        *others, last = (each.replace("/", "`, `") for each in given)
        yield ", ".join(f"`{each}`" for each in [*others, last + value]), info[0].help or ""


def _cell(text: str) -> str:
    """Return a text for the cell of a table, which a vertical bar would end."""
    return text.replace("|", "\\|")


def command_line(page: str, commands: Mapping[str, Callable[..., None]]) -> str:
    """Return the text of `docs/guides/command-line.md` with what the commands say of their flags.

    Args:
        page: The page as it is.
        commands: The commands by name.
    """
    of: dict[tuple[str, str], list[str]] = {}
    for name, command in commands.items():
        for flag in flags_of(command):
            of.setdefault(flag, []).append(name)
    rows = "".join(f"| {_cell(flag)} | {', '.join(names)} | {_cell(text)} |\n" for (flag, text), names in of.items())
    before, after = page[: page.index("## Options\n")], page[page.index("\n## Chats\n") :]
    return before + _FLAGS + rows + after


# ---------------------------------------------------------------------------------------------------------- the files


def files() -> Iterator[tuple[Path, Callable[[], str]]]:
    """Return the generated files, and what makes the text of each."""
    loading, generation, calls = of_config(ModelConfig), of_config(GenerationConfig), of_calls()
    yield ROOT / "cyllama/generation_options.py", lambda: typed_dict(generation)
    yield (
        ROOT / "integrations/langchain_cyllama/_fields.py",
        lambda: langchain_fields(loading, generation, calls),
    )
    yield ROOT / "docs/options.md", lambda: page(loading, generation, calls)
    llm, guide = ROOT / "cyllama/llm.py", ROOT / "docs/guides/command-line.md"
    yield llm, lambda: chat_docstring(llm.read_text(encoding="utf-8"), calls)
    yield guide, lambda: command_line(guide.read_text(encoding="utf-8"), {"a prompt": generate, **COMMANDS})


def outdated() -> list[tuple[Path, str]]:
    """Return the files that are out of date, and the text of each."""
    texts = [(path, make()) for path, make in files()]
    return [(path, text) for path, text in texts if not path.exists() or path.read_text(encoding="utf-8") != text]


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    check = parser.parse_args().check
    changed = outdated()
    for path, text in changed:
        if check:
            print(f"{path.relative_to(ROOT)} is out of date: make options", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return int(check and bool(changed))


# ------------------------------------------------------- what LangChain's classes take besides: see their _arguments.py

#: Types that an argument may have besides.
ALSO = {
    "split_mode": "int",
    "flash_attn": "bool",
    "type_k": "int",
    "type_v": "int",
    "rope_scaling_type": "int",
    "stop_sequences": "str",
    "logprobs": "bool",
}
#: What stands for the ``None`` of an option.
FOR_NONE = {
    "n_threads": "0 or less",
    "n_threads_batch": "0 or less",
    "max_tokens": "0 or less",
    "n_ctx": "0 or less",
    "seed": "A negative number",
}
_NUMBER = "llama.cpp's number of it is valid too."
#: What is said besides.
MORE = {
    "split_mode": _NUMBER,
    "flash_attn": "A `bool` stands for the last two.",
    "type_k": _NUMBER,
    "type_v": _NUMBER,
    "rope_scaling_type": _NUMBER,
    "logprobs": "`True` reports `top_logprobs` of them.",
    "enable_thinking": (
        'Its reasoning is in `additional_kwargs["reasoning_content"]` of the message, and among its `content_blocks`.'
    ),
}
#: What is said instead.
REPLACED = {
    "lora": (
        "LoRA adapters to compute with, and their scales: by the paths of their files, or by the names that "
        "`client.load_lora` gave them."
    ),
    "continue_final_message": (
        "Whether the answer continues the last message if that is an `AIMessage`. It is then only the text that "
        "follows. (Default: `True`, but `False` with `response_format` and `with_structured_output`.)"
    ),
}
#: Defaults that are not cyllama's.
DEFAULTS = {"n_parallel": 16}
#: Options of chats that LangChain's methods take, or that `CyllamaBase` declares itself.
NOT_CHAT_FIELDS = ("tools", "tool_choice", "grammar", "response_format", "max_attempts")


if __name__ == "__main__":
    sys.exit(main())
