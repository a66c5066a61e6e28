"""Messages to prompt, and text to message: templates, tools, reasoning, formats of answers."""

from .messages import Function, Message, MessageLike, Role, ToolCall, as_mapping, check_messages
from .parser import ChatDelta, ChatParser, FunctionDelta, MessageBuilder, ToolCallDelta, add_up
from .parts import comparable
from .plan import ChatPlan
from .reasoning import ReasoningBudget
from .response import ChatFinishReason, ChatResponse
from .sampling import grammar_sampler, plan_samplers, preserved_token_ids, spec_samplers
from .template import ChatTemplates, prepare, render
from .tools import Tool, ToolChoice, ToolChoiceLike, ToolLike, check_tool_choice, check_tools
from .variables import REASONING_EFFORTS, ReasoningEffort, TemplateVariables, check_variables

__all__ = [
    "REASONING_EFFORTS",
    "ChatDelta",
    "ChatFinishReason",
    "ChatParser",
    "ChatPlan",
    "ChatResponse",
    "ChatTemplates",
    "Function",
    "FunctionDelta",
    "Message",
    "MessageBuilder",
    "MessageLike",
    "ReasoningBudget",
    "ReasoningEffort",
    "Role",
    "TemplateVariables",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolChoiceLike",
    "ToolLike",
    "add_up",
    "as_mapping",
    "check_messages",
    "check_tool_choice",
    "check_tools",
    "check_variables",
    "comparable",
    "grammar_sampler",
    "plan_samplers",
    "prepare",
    "preserved_token_ids",
    "render",
    "spec_samplers",
]
