"""Messages to prompt, and text to message: templates, tools, reasoning, formats of answers."""

from .messages import Function, Message, MessageLike, Role, ToolCall, check_messages
from .parser import ChatDelta, ChatParser, FunctionDelta, MessageBuilder, ToolCallDelta, add_up
from .response_format import (
    ResponseFormat,
    ResponseFormatLike,
    check_constraint,
    check_grammar,
    check_response_format,
)
from .sampling import grammar_sampler, preserved_token_ids
from .schema import schema_grammar
from .template import ChatPlan, ChatTemplates, GrammarSpec, Trigger, prepare, render
from .tools import Tool, ToolChoice, ToolChoiceLike, ToolLike, check_tool_choice, check_tools

__all__ = [
    "ChatDelta",
    "ChatParser",
    "ChatPlan",
    "ChatTemplates",
    "Function",
    "FunctionDelta",
    "GrammarSpec",
    "Message",
    "MessageBuilder",
    "MessageLike",
    "ResponseFormat",
    "ResponseFormatLike",
    "Role",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolChoiceLike",
    "ToolLike",
    "Trigger",
    "add_up",
    "check_constraint",
    "check_grammar",
    "check_messages",
    "check_response_format",
    "check_tool_choice",
    "check_tools",
    "grammar_sampler",
    "prepare",
    "preserved_token_ids",
    "render",
    "schema_grammar",
]
