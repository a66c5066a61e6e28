"""The plan of a chat: its prompt, and how the answer is generated and read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..grammar import Conversion, GrammarSpec, ResponseFormat, check_json
from .messages import Message
from .parser import ChatParser, Read
from .reasoning import ReasoningBudget


@dataclass(frozen=True)
class ChatPlan:
    """A chat as a prompt, and how its answer is generated and read.

    Attributes:
        prompt: The prompt, which ends where the answer begins: a :class:`RenderedChat`, which tells control tokens of
            the template from text of messages that only spells them.
        grammar: What the answer is constrained by.
        stop_sequences: Texts that end the answer.
        preserved_tokens: Control tokens whose text the parser has to see.
        response_format: What the content has to look like.
        read: Reads an answer.
        reasoning: How long the model may reason.
        strict: The schemas of the arguments of tools whose calls have to be valid, by the tools' names.
        prefill: What the prompt ends with of the content, where the answer continues a message.
    """

    prompt: str
    grammar: GrammarSpec | None
    stop_sequences: tuple[str, ...]
    preserved_tokens: tuple[str, ...]
    response_format: ResponseFormat | None
    read: Read
    reasoning: ReasoningBudget | None = None
    strict: Mapping[str, Conversion] = field(default_factory=dict, repr=False, compare=False)
    prefill: str = ""

    def check(self, message: Message) -> None:
        """Validate the calls of strict tools, where the grammar left something out.

        Raises:
            OutputError: The arguments of a call are not valid.
        """
        for call in message.tool_calls:
            conversion = self.strict.get(call.function.name)
            if conversion is not None and conversion.left_out:
                check_json(
                    call.function.arguments, conversion.normalized, f"the call of the tool {call.function.name!r}"
                )

    def parser(self) -> ChatParser:
        """Return what reads one answer."""
        return ChatParser(self.read)

    def parse(self, text: str) -> Message:
        """Return the message of an answer, whole or cut."""
        parser = self.parser()
        parser.push(text)
        parser.finish()
        return parser.message


def escape(text: str) -> str:
    """Return the regular expression, of C++'s ``std::regex``, of a text."""
    return re.sub(r"[.^$|()*+?\[\]{}\\]", r"\\\g<0>", text)
