"""What an answer has to look like: JSON, JSON of a schema, a pydantic model, or a text of a grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any, TypeAlias, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from ..errors import ConfigError, GrammarError, OutputError, SchemaError
from ..llama.llama_cpp import LlamaSampler, LlamaVocab
from ..llama.llama_cpp import check_grammar as check_gbnf
from .check import check_json
from .schema import Conversion, conversion_grammar, convert, model_schema

#: "json", "text", a JSON schema, OpenAI's dict, a pydantic model, or a type such as a dataclass, a TypedDict,
#: ``list[Model]`` or ``Literal["yes", "no"]``.
ResponseFormatLike: TypeAlias = Any

MAX_GRAMMAR = 2**20
_ANY_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True)
class ResponseFormat:
    """What an answer has to look like.

    >>> expected = ResponseFormat.of({"enum": ["red", "green"]})
    >>> expected.parse(llm("A color:", response_format={"enum": ["red", "green"]})) in ("red", "green")
    True

    Attributes:
        schema: The JSON schema that it is valid under.
        model: The pydantic model, or the type, that it is an instance of.
        conversion: The schema as a grammar.
    """

    schema: dict[str, Any]
    model: Any = None
    conversion: Conversion = field(repr=False, compare=False, default_factory=lambda: Conversion({}))

    @staticmethod
    def of(response_format: ResponseFormatLike) -> ResponseFormat | None:
        """Return the format that ``response_format`` of a call stands for; ``None`` for any text.

        >>> ResponseFormat.of("json").schema
        {'type': 'object'}

        Args:
            response_format: "json", "text", a JSON schema, OpenAI's dict, a pydantic model or another type.

        Raises:
            SchemaError: It is not one of these, or no value is valid under its schema.
        """
        return check_response_format(response_format)

    @property
    def grammar(self) -> str:
        """The GBNF grammar of the answer alone, without reasoning before it."""
        return conversion_grammar(self.conversion)

    def dump(self) -> str:
        """Return what llama.cpp is given in place of the schema, as JSON text.

        >>> list(json.loads(ResponseFormat.of("json").dump()))
        ['const']
        """
        return json.dumps({"const": self.conversion.constant})

    def parse(self, text: str) -> Any:
        """Return the value of an answer: an instance of the model, or what the JSON means.

        >>> ResponseFormat.of("json").parse('{"color": "red"}')
        {'color': 'red'}

        Args:
            text: The answer.

        Raises:
            OutputError: The text is not such JSON: it was cut, or is not valid under what the grammar left out.
        """
        try:
            if self.model is not None:
                return TypeAdapter(self.model).validate_json(text)
            if self.conversion.left_out:
                return check_json(text, self.conversion.normalized, "the answer")
            return json.loads(text)
        except OutputError:
            raise
        except (ValueError, RecursionError) as error:
            reason = str(error) if not isinstance(error, ValidationError) else f"{error.error_count()} errors: {error}"
            raise OutputError(f"the answer does not fit the response format: {reason}", text) from error


def check_response_format(response_format: ResponseFormatLike) -> ResponseFormat | None:
    """Return what a response format means; ``None`` for any text.

    Raises:
        SchemaError: It is not a valid response format, or its schema cannot be converted to a grammar.
    """
    model: Any = None
    schema: Any = response_format
    if response_format is None or response_format == "text":
        return None
    if isinstance(response_format, str):
        if response_format not in ("json", "json_object"):
            raise SchemaError(
                f"response_format is 'json', 'text', a schema or a pydantic model, not {response_format!r:.80}"
            )
        schema = _ANY_OBJECT
    elif _is_type(response_format):
        model, schema = response_format, model_schema(response_format)
    elif isinstance(response_format, Mapping):
        kind = response_format.get("type")
        if kind == "text":
            return None
        if kind == "json_object":  # llama.cpp's server takes a schema here
            schema = response_format.get("schema", _ANY_OBJECT)
        elif kind == "json_schema":
            inner = response_format.get("json_schema")
            schema = inner.get("schema") if isinstance(inner, Mapping) else response_format.get("schema")
    if not isinstance(schema, Mapping):
        raise SchemaError(
            "response_format is 'json', a JSON schema, "
            '{"type": "json_schema", "json_schema": {"schema": ...}}, a pydantic model or a type of its own, '
            f"not {response_format!r:.80}"
        )
    return ResponseFormat(dict(schema), model, convert(schema, name="response_format"))


def _is_type(value: object) -> bool:
    """Whether a value is a type with a schema of its own: none of Python's plain ones."""
    if isinstance(value, type) and (issubclass(value, BaseModel) or is_dataclass(value) or is_typeddict(value)):
        return True
    return get_origin(value) is not None


def check_constraint(
    grammar: str | None, response_format: ResponseFormatLike, vocab: LlamaVocab
) -> tuple[str | None, ResponseFormat | None]:
    """Return the GBNF grammar of a text, if it has to fit one, and what its value is.

    Raises:
        GrammarError: ``grammar`` is not valid GBNF.
        SchemaError: ``response_format`` is not valid, or its schema cannot be converted to a grammar.
        ConfigError: Both are given.
    """
    expected = check_response_format(response_format)
    if grammar is None:
        return None if expected is None else expected.grammar, expected
    if expected is not None:
        raise ConfigError("a text has one form: pass either grammar or response_format")
    return check_grammar(grammar, vocab), None


def check_grammar(grammar: str, vocab: LlamaVocab | None = None) -> str:
    """Return a GBNF grammar.

    Args:
        grammar: The grammar.
        vocab: Whose tokens it may name.

    Raises:
        GrammarError: It is not valid GBNF.
    """
    if not isinstance(grammar, str):
        raise GrammarError(f"a grammar is a str, not {type(grammar).__name__}: {grammar!r:.80}")
    if len(grammar) > MAX_GRAMMAR:
        raise GrammarError(f"the grammar has {len(grammar)} characters, but {MAX_GRAMMAR} are the limit")
    try:
        grammar.encode()
        if vocab is None:
            check_gbnf(grammar)
        elif grammar:
            LlamaSampler.grammar(vocab, grammar)
        else:
            raise GrammarError("the grammar is empty")
    except UnicodeEncodeError as error:
        raise GrammarError(f"the grammar has a lone surrogate at index {error.start}") from error
    except GrammarError:
        raise
    except (ValueError, RuntimeError) as error:
        raise GrammarError(str(error)) from error
    return grammar
