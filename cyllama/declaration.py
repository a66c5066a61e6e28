"""How an option is declared: what it does, its unit, and where it comes from, beside its name, type and default.

`config.py` and `options.py` declare every option once. Docstrings, the flags of the command line, the arguments of
LangChain's classes and the table of `docs/options.md` are made of these declarations.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable
from functools import cache
from inspect import cleandoc
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

ModelT = TypeVar("ModelT", bound=BaseModel)

_COLUMNS = 100  # of the lists in docstrings, which a terminal shows indented


_IN_SCHEMAS = ("none", "none_values", "unit", "source", "other_name")


class Option(NamedTuple):
    """What is said of an option besides its name and type.

    Attributes:
        text: What it does, in Markdown.
        none: What ``None`` means, where that is not "no value".
        unit: What its value counts, such as "tokens".
        source: The paper, or the function or parameter of llama.cpp, that it is taken from.
        default: What a call uses that does not give it. Options of a config have it as the default of their field.
        bounds: The smallest and the largest value. Options of a config have them in their type.
        none_values: Numbers that stand for ``None``, because they do in other programs.
        other_name: Another name of the same option.
    """

    text: str
    none: str = ""
    unit: str = ""
    source: str = ""
    default: Any = None
    bounds: tuple[float, float] | None = None
    none_values: tuple[int, ...] = ()
    other_name: str = ""

    @property
    def description(self) -> str:
        """The text, followed by what ``None`` means, and by the other name."""
        return f"{self.text}{self._rest}"

    @property
    def _rest(self) -> str:
        values = "".join(f" or {value}" for value in self.none_values)
        none = f" `None`{values}: {self.none}." if self.none else ""
        return none + (f" `{self.other_name}` is another name of it." if self.other_name else "")


def option(
    default: Any,
    text: str,
    *,
    none: str = "",
    none_values: tuple[int, ...] = (),
    unit: str = "",
    source: str = "",
    other_name: str = "",
) -> Any:
    """Return the field of an option. The arguments are the attributes of :class:`Option`.

    Pydantic shows them in the JSON schema of the config: ``description``, ``unit``, ``source``, ``none``, ...
    """
    said = Option(text, none, unit, source, none_values=none_values, other_name=other_name)
    extra: dict[str, Any] = {name: getattr(said, name) for name in _IN_SCHEMAS if getattr(said, name)}
    return Field(default, description=said.description, json_schema_extra=extra)


def declaration(field: FieldInfo) -> Option:
    """Return what :func:`option` was given for a field."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    said = Option("", **{name: extra[name] for name in _IN_SCHEMAS if name in extra})  # pyright: ignore[reportArgumentType]
    text = (field.description or "").removesuffix(said.description)
    return said._replace(text=text, default=field.get_default(call_default_factory=True))


@cache
def none_values(config: type[BaseModel]) -> dict[str, tuple[int, ...]]:
    """Return the numbers that stand for ``None``, by the name of the option."""
    said = {name: declaration(field) for name, field in config.model_fields.items()}
    return {name: option.none_values for name, option in said.items() if option.none_values}


def other_names(*configs: type[BaseModel]) -> dict[str, str]:
    """Return the own names of options that have another name as well, by that."""
    said = ((name, declaration(field)) for config in configs for name, field in config.model_fields.items())
    return {option.other_name: name for name, option in said if option.other_name}


def documented(config: type[ModelT]) -> type[ModelT]:
    """Add the list of all options to the docstring of a config."""
    type.__setattr__(config, "__doc__", _DocWithOptions(config.__doc__ or ""))
    return config


class _DocWithOptions:
    """A docstring that ends with the list of options. The list is made when it is first read, not at import."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._whole = ""

    def __get__(self, _instance: object, config: type[BaseModel]) -> str:
        if not self._whole:
            options = ((name, declaration(field)) for name, field in config.model_fields.items())
            self._whole = f"{cleandoc(self._text)}\n\nAttributes:\n{attribute_list(options)}"
        return self._whole


def attribute_list(options: Iterable[tuple[str, Option]]) -> str:
    """Return the entries of a docstring's section "Attributes" or "Args", one for each option."""
    fill = textwrap.TextWrapper(
        _COLUMNS, initial_indent="    ", subsequent_indent="        ", break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(fill.fill(_entry(name, option)) for name, option in options)


def _entry(name: str, option: Option) -> str:
    facts = [f"default {option.default!r}", option.unit, option.source]
    return f"{name}: {option.description} ({'; '.join(fact for fact in facts if fact)})".replace("`", "``")


def as_path_text(value: Any) -> Any:
    """Return a path as a text, and everything else as it is."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def as_draft_name(value: Any) -> Any:
    """Return the name or path of a model that drafts as a text, and ``None`` as it is.

    Raises:
        PydanticCustomError: It is something else.
    """
    if value is None or isinstance(value, (str, os.PathLike)):
        return as_path_text(value)
    accepted = "the path or the name of a model; a loaded LLM is passed by its keyword, as in LLM(..., draft_model=llm)"
    raise PydanticCustomError("draft_model", "input should be {accepted}", {"accepted": accepted})


def describe_errors(owner: str, error: ValidationError) -> str:
    """Return a line for each wrong value, with the value itself. A name or a number is one value, not two types."""
    lines: dict[str, tuple[list[str], Any]] = {}
    items = error.errors(include_url=False, include_context=False)
    unions = {item["loc"][0] for item in items if str(item["loc"][-1]).startswith("literal[")}
    names = (("constrained-str",), ("str",))
    unions |= {item["loc"][0] for item in items if item["loc"][1:] in names}  # a switch, or a name
    for item in items:
        loc = item["loc"][:1] if item["loc"][0] in unions else item["loc"]
        messages, _ = lines.setdefault(".".join(str(part) for part in loc), ([], item["input"]))
        messages.append(f"{item['msg'][0].lower()}{item['msg'][1:]}")
    return "\n".join(
        f"{owner}.{path}: {', or '.join(messages)}, not {value!r:.80}" for path, (messages, value) in lines.items()
    )
