"""What an answer has to look like: JSON, JSON of a schema, a pydantic model, or a text of a grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError, GrammarError, OutputError, SchemaError
from ..llama.llama_cpp import LlamaSampler, LlamaVocab
from ..llama.llama_cpp import check_grammar as check_gbnf
from .check import check_json
from .schema import Conversion, conversion_grammar, convert, model_schema

#: "json", "text", a JSON schema, OpenAI's dict, or a pydantic model.
ResponseFormatLike: TypeAlias = str | Mapping[str, Any] | type[BaseModel] | None

MAX_GRAMMAR = 2**20
_ANY_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True)
class ResponseFormat:
    """What an answer has to look like.

    Attributes:
        schema: The JSON schema that it is valid under.
        model: The pydantic model that it is an instance of.
    """

    schema: dict[str, Any]
    model: type[BaseModel] | None = None
    conversion: Conversion = field(repr=False, compare=False, default_factory=lambda: Conversion({}))

    @property
    def grammar(self) -> str:
        """The GBNF grammar of the answer alone, without reasoning before it."""
        return conversion_grammar(self.conversion)

    def dump(self) -> str:
        """Return what llama.cpp is given in place of the schema, as JSON text."""
        return json.dumps({"const": self.conversion.constant})

    def parse(self, text: str) -> Any:
        """Return the value of an answer: an instance of the model, or what the JSON means.

        Raises:
            OutputError: The text is not such JSON: it was cut, or is not valid under what the grammar left out.
        """
        try:
            if self.model is not None:
                return self.model.model_validate_json(text)
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
        SchemaError: It is none, or its schema cannot be converted to a grammar.
    """
    model: type[BaseModel] | None = None
    schema: Any = response_format
    if response_format is None or response_format == "text":
        return None
    if isinstance(response_format, str):
        if response_format not in ("json", "json_object"):
            raise SchemaError(
                f"response_format is 'json', 'text', a schema or a pydantic model, not {response_format!r:.80}"
            )
        schema = _ANY_OBJECT
    elif isinstance(response_format, type) and issubclass(response_format, BaseModel):
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
            '{"type": "json_schema", "json_schema": {"schema": ...}} or a pydantic model, '
            f"not {response_format!r:.80}"
        )
    return ResponseFormat(dict(schema), model, convert(schema, name="response_format"))


def check_constraint(
    grammar: str | None, response_format: ResponseFormatLike, vocab: LlamaVocab
) -> tuple[str | None, ResponseFormat | None]:
    """Return the GBNF grammar of a text, if it has to fit one, and what its value is.

    Raises:
        GrammarError: ``grammar`` is none.
        SchemaError: ``response_format`` is none, or its schema cannot be converted to a grammar.
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
        GrammarError: It is none.
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
