"""JSON schemas as grammars.

The grammar allows every valid value, in one way of writing it: properties in the order of the schema, and only those
that it names, unless it allows others. Keywords that a grammar cannot express are left out and recorded, so that an
answer can be checked (:mod:`.check`).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from ..errors import SchemaError
from . import gbnf

if TYPE_CHECKING:
    from .normalize import Schema

logger = logging.getLogger(__name__)


@dataclass
class Conversion:
    """A schema as a grammar.

    Attributes:
        schema: A schema that llama.cpp is given in its place. The constants in it stand for rules.
        constant: A constant that stands for all of it.
        stand_ins: These constants as they appear in a grammar of llama.cpp's, and the rules that they stand for.
        rules: The rules, and those that they refer to.
        root: The name of the rule of a value.
        left_out: JSON pointers and keywords of what the grammar does not enforce.
        normalized: The schema in the keywords of draft 2020-12.
    """

    schema: Schema
    constant: int = 0
    stand_ins: dict[str, str] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    root: str = ""
    left_out: tuple[tuple[str, str], ...] = ()
    normalized: Schema = field(default_factory=dict)


def convert(schema: object, *, name: str = "schema", number: int = 0, tolerant: bool = False) -> Conversion:
    """Return a schema as a grammar of all values that are valid under it, and what the grammar does not enforce.

    Args:
        schema: A JSON schema.
        name: What errors call it.
        number: Tells it from other schemas in the same grammar.
        tolerant: Whether parts that are not a schema, or exclude every value, are ignored instead of refused.

    Raises:
        SchemaError: It is not a schema, or nothing is valid under it.
    """
    key = _key(schema, name, number, tolerant)
    known = None if key is None else _KNOWN.get(key)
    if known is not None:
        return known
    try:
        conversion = _convert(schema, name, number, tolerant=tolerant)
    except SchemaError as error:
        if not tolerant:
            raise
        logger.warning("%s: any object is allowed in its place", error)
        conversion = _convert({"type": "object"}, name, number, tolerant=False)
        conversion.left_out = ((error.path, ""),)
    if conversion.left_out:
        _log_once(name, conversion.left_out)
    if key is not None:
        _remember(_KNOWN, key, conversion, _MOST_KNOWN)
    return conversion


_KNOWN: dict[tuple[object, ...], Conversion] = {}
_MOST_KNOWN = 256
_LARGEST_KEY = 100_000


def _key(*arguments: object) -> tuple[object, ...] | None:
    """Return the key of a conversion; ``None`` for one that is not cached."""
    try:
        text = json.dumps(arguments[0])
    except (TypeError, ValueError, RecursionError):
        return None
    return (text, *arguments[1:]) if len(text) <= _LARGEST_KEY else None


_lock = Lock()


def _remember(cache: dict[Any, Any], key: object, value: object, most: int) -> None:
    with _lock:
        cache[key] = value
        while len(cache) > most:
            del cache[next(iter(cache))]


def _convert(schema: object, name: str, number: int, *, tolerant: bool) -> Conversion:
    from .converter import Converter  # here, since `import cyllama` is faster without
    from .normalize import Normalizer
    from .stand_ins import words

    normalized = Normalizer(schema, name, tolerant=tolerant).run()
    converter = Converter(normalized, name, f"schema-{number}-", tolerant=tolerant)
    root = converter.run()
    graph = converter.graph
    given, constant, stand_ins = words(graph, root, number)
    graph.write(root)
    for rule in stand_ins.values():
        graph.write(rule)
    left_out = tuple(normalized.left_out | converter.left_out)
    return Conversion(given, constant, stand_ins, graph.rules.bodies, root, left_out, normalized.schema)


_LOGGED: dict[tuple[str, tuple[tuple[str, str], ...]], None] = {}


def _log_once(name: str, left_out: tuple[tuple[str, str], ...]) -> None:
    if (name, left_out) in _LOGGED:
        return
    _remember(_LOGGED, (name, left_out), None, 1000)
    places = ", ".join(f"{path}/{keyword}" if keyword else path for path, keyword in left_out[:20])
    more = f" and {len(left_out) - 20} more" if len(left_out) > 20 else ""
    logger.warning("%s: the grammar does not enforce %s%s", name, places, more)


def model_schema(model: Any) -> dict[str, Any]:
    """Return the JSON schema of a pydantic model, or of a type; recursion is kept as references into ``$defs``.

    Raises:
        SchemaError: Pydantic has no schema for it.
    """
    try:
        from .models import SchemaGenerator

        return TypeAdapter(model).json_schema(schema_generator=SchemaGenerator)
    except (PydanticUserError, PydanticSchemaGenerationError) as error:
        raise SchemaError(f"there is no JSON schema of {getattr(model, '__name__', model)!s:.80}: {error}") from error


def schema_grammar(schema: object, *, name: str = "schema") -> str:
    """Return the GBNF grammar of a schema.

    Raises:
        SchemaError: It is not a schema, or nothing is valid under it.
    """
    return conversion_grammar(convert(schema, name=name))


def conversion_grammar(conversion: Conversion) -> str:
    """Return the GBNF grammar of a converted schema alone."""
    rules = {"root": conversion.root} | conversion.rules
    return "".join(f"{rule} ::= {body}\n" for rule, body in rules.items())


def finish_grammar(grammar: str, conversions: Iterable[Conversion]) -> str:
    """Replace the stand-ins in a grammar of llama.cpp's, and correct its own rules."""
    rules: dict[str, str] = {}
    stand_ins: dict[str, str] = {}
    for conversion in conversions:
        stand_ins |= conversion.stand_ins
        rules |= conversion.rules
    if stand_ins:
        grammar = _STAND_IN.sub(lambda match: stand_ins.get(match[0], match[0]), grammar)
    lines = []
    for line in grammar.rstrip("\n").split("\n"):  # and not at the other ends of lines that Unicode has
        rule, _, body = line.partition(" ::= ")
        lines.append(f"{rule} ::= {_BETTER_RULES.get((rule, body), body)}")
    return "\n".join([*lines, *(f"{rule} ::= {body}" for rule, body in rules.items())]) + "\n"


_STAND_IN = re.compile(r'"\\"\ue000stand-in:\d+:\d+\\""|"72057\d{11}"')

#: Rules of llama.cpp that allow half of a surrogate pair, a number that is not finite, or white space without end; each
#: with its body, so that another rule of the same name is not replaced.
_BETTER_RULES = {
    ("char", r'[^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt] | "u" [0-9a-fA-F]{4})'): gbnf.CHAR_BODY,
    (
        "number",
        '("-"? integral-part) ("." decimal-part)? ([eE] [-+]? integral-part)?',
    ): '"-"? integral-part ("." decimal-part)? ([eE] [-+]? [0-9] [0-9]?)?',
    ("space", r'| " " | "\n"{1,2} [ \t]{0,20}'): gbnf.SPACE_BODY,
}
