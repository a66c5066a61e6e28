"""Constraints of a text: grammars, JSON schemas as grammars, response formats."""

from .check import check_json
from .response_format import (
    ResponseFormat,
    ResponseFormatLike,
    check_constraint,
    check_grammar,
    check_response_format,
)
from .schema import Conversion, convert, finish_grammar, model_schema, schema_grammar
from .spec import GrammarSpec, Trigger

__all__ = [
    "Conversion",
    "GrammarSpec",
    "ResponseFormat",
    "ResponseFormatLike",
    "Trigger",
    "check_constraint",
    "check_grammar",
    "check_json",
    "check_response_format",
    "convert",
    "finish_grammar",
    "model_schema",
    "schema_grammar",
]
