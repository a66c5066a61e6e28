"""Grammars by llama-cpp-python's class."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from typing_extensions import Self

from ..errors import SchemaError
from ..grammar import ResponseFormat, check_grammar


class LlamaGrammar:
    """A grammar that a text has to fit. Calls of :class:`Llama` take its GBNF as a `str` as well.

    >>> from cyllama.compat import Llama, LlamaGrammar
    >>> llama = Llama(LLM().model_path)
    >>> grammar = LlamaGrammar.from_string('root ::= "yes" | "no"')
    >>> llama("Is the sky blue?", grammar=grammar)["choices"][0]["text"] in ("yes", "no")
    True
    """

    def __init__(self, *, _grammar: str) -> None:
        self._grammar = _grammar

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> Self:  # noqa: ARG003 - llama-cpp-python has it
        """Return the grammar of a text in GBNF.

        Args:
            grammar: The text.
            verbose: Has no effect.

        Raises:
            GrammarError: It is not valid GBNF.
        """
        return cls(_grammar=check_grammar(grammar))

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], verbose: bool = True) -> Self:
        """Return the grammar in a file. Arguments and errors are those of :meth:`from_string`, and of reading it."""
        return cls.from_string(Path(file).read_text(encoding="utf-8"), verbose)

    @classmethod
    def from_json_schema(cls, json_schema: str | dict[str, Any], verbose: bool = True) -> Self:  # noqa: ARG003 - llama-cpp-python has it
        """Return the grammar of the JSON that is valid under a schema.

        What no grammar can express of a schema is not checked; `response_format` of
        :meth:`Llama.create_chat_completion` is the better way.

        Args:
            json_schema: The schema, as JSON text or as a dict.
            verbose: Has no effect.

        Raises:
            SchemaError: It is not a schema, or cannot be converted to a grammar.
        """
        try:
            schema = json.loads(json_schema) if isinstance(json_schema, str) else json_schema
        except ValueError as error:
            raise SchemaError(f"the schema is not valid JSON: {error}: {json_schema!r:.80}") from error
        expected = ResponseFormat.of({"type": "json_object", "schema": schema})
        assert expected is not None
        return cls(_grammar=expected.grammar)

    def __repr__(self) -> str:
        return f"<LlamaGrammar of {len(self._grammar)} characters>"
