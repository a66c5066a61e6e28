"""A chat as the model was trained to read it, and how its answer is constrained and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..control_text import RenderedChat
from ..errors import ChatTemplateError, ConfigError, MessageError
from ..grammar import ResponseFormatLike, check_grammar, check_response_format
from ..llama.llama_cpp import LlamaModel
from . import planning
from .compiled_templates import CompiledTemplates
from .continuation import continue_plan
from .media import PlacedImages
from .merging import Messages
from .messages import MessageLike, check_messages
from .plan import ChatPlan
from .prefill import Prefill, beginnings, split_prefill
from .rendering import Chat
from .tools import ToolChoiceLike, ToolLike, check_tool_choice, check_tools
from .variables import TemplateVariables, check_variables


class ChatTemplates(CompiledTemplates):
    """The chat templates that are used with one model: prompts of chats, and plans of their answers.

    Args:
        model: The model.
        control_text: The texts of its control tokens, if there is one already.
    """

    def render(
        self,
        messages: Sequence[MessageLike],
        *,
        tools: Sequence[ToolLike] | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        enable_thinking: bool | None = None,
        reasoning_effort: str | None = None,
        continue_final_message: bool | None = None,
        add_generation_prompt: bool = True,
    ) -> RenderedChat:
        """Return the prompt for messages, which tells its control tokens from text that only spells them.

        Args:
            messages: Dicts in OpenAI's format, or :class:`Message`.
            tools: Tools that the prompt describes.
            chat_template: Jinja source to use instead of the model's own, a name that llama.cpp knows, or a path.
            chat_template_kwargs: Variables of the template by name, JSON values.
            enable_thinking: Whether the model reasons, where its template can be told.
            reasoning_effort: How hard it reasons, by OpenAI's names, where its template can be told.
            continue_final_message: Whether the prompt ends with what the last message says, the assistant's; ``None``
                does so if there is such a message.
            add_generation_prompt: Whether the prompt ends with the beginning of the assistant's answer.

        Raises:
            ChatTemplateError: There is no template, or it cannot be compiled, or it refuses the messages.
            MessageError: The messages are not a valid chat.
            ToolError: A tool is not valid.
            ConfigError: A variable of the template cannot be set, or two arguments contradict each other.
            PromptError: A text has lone surrogates.
        """
        variables = check_variables(chat_template_kwargs, enable_thinking, reasoning_effort)
        wanted = continue_final_message if add_generation_prompt or continue_final_message else False
        images, offered = PlacedImages(check_messages(messages)), check_tools(tools)
        checked = images.messages
        before, prefill = split_prefill(checked, wanted)
        variables = _while_reasoning(variables, prefill)

        def new_chat(chosen: Messages) -> Chat:
            return Chat(self, list(chosen), offered, chat_template, variables)

        if prefill is None:
            return images.in_prompt(new_chat(before).render(add_generation_prompt=add_generation_prompt)[0])
        try:
            prompt = _continuation(prefill, new_chat(before or _NOTHING_SAID), new_chat(checked))[0]
        except MessageError:
            if continue_final_message:
                raise
            prompt = new_chat(checked).render()[0]
        return images.in_prompt(prompt)

    # Long by its arguments: each is an option of a chat.
    def prepare(
        self,
        messages: Sequence[MessageLike],
        *,
        tools: Sequence[ToolLike] | None = None,
        tool_choice: ToolChoiceLike = None,
        response_format: ResponseFormatLike = None,
        grammar: str | None = None,
        parallel_tool_calls: bool = False,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        enable_thinking: bool | None = None,
        reasoning_effort: str | None = None,
        reasoning_budget: int | None = None,
        continue_final_message: bool | None = None,
    ) -> ChatPlan:
        """Return the prompt for messages, and how to generate and read the answer.

        The prompt does not depend on ``tool_choice``, ``response_format`` or ``grammar``.

        Args:
            messages: Dicts in OpenAI's format, or :class:`Message`.
            tools: Tools that the model may call.
            tool_choice: "none", "auto" (the default), "required" or "any", the name of a tool, or OpenAI's dict.
            response_format: "json", a JSON schema, OpenAI's dict, or a pydantic model: what an answer without calls
                has to be.
            grammar: GBNF that the answer has to fit.
            parallel_tool_calls: Whether one answer may call several tools.
            chat_template: Jinja source to use instead of the model's own, a name that llama.cpp knows, or a path.
            chat_template_kwargs: Variables of the template by name, JSON values.
            enable_thinking: Whether the model reasons, where its template can be told.
            reasoning_effort: How hard it reasons, by OpenAI's names, where its template can be told.
            reasoning_budget: Tokens that it may reason with; then the end of the reasoning is forced. ``None`` or -1
                for any number; 0 turns reasoning off.
            continue_final_message: Whether the answer continues the last message, which is the assistant's; ``None``
                does so if there is such a message, and what it says can begin an answer of that form.

        Raises:
            ChatTemplateError: There is no template, or it cannot be compiled, or it refuses the messages.
            MessageError: The messages are not a valid chat.
            ToolError: A tool is not valid, or ``tool_choice`` does not fit the tools.
            SchemaError: A schema cannot be converted to a grammar.
            GrammarError: ``grammar`` is not valid GBNF.
            ConfigError: ``grammar`` is combined with tools or a response format, or a variable cannot be set.
            PromptError: A text has lone surrogates.
        """
        checked = check_tools(tools)
        choice = check_tool_choice(tool_choice, checked)
        expected = check_response_format(response_format)
        if grammar is not None:
            check_grammar(grammar, self._model.vocab)
        if grammar is not None and (expected is not None or choice.mode != "none"):
            raise ConfigError(
                "an answer fits one grammar: pass grammar without response_format, and tools with tool_choice='none'"
            )
        variables = check_variables(chat_template_kwargs, enable_thinking, reasoning_effort, reasoning_budget)
        images = PlacedImages(check_messages(messages))
        history = images.messages
        before, prefill = split_prefill(history, continue_final_message)
        variables = _while_reasoning(variables, prefill)

        def new_chat(chosen: Messages) -> Chat:
            return Chat(self, list(chosen), checked, chat_template, variables)

        def plan(chat: Chat) -> ChatPlan:
            if choice.mode != "none":
                return planning.with_tools(chat, choice.allowed(checked), choice.mode, parallel_tool_calls, expected)
            return planning.plain(chat, grammar) if expected is None else planning.with_format(chat, expected)

        if prefill is None:
            return images.in_plan(plan(new_chat(before)))
        chat = new_chat(before or _NOTHING_SAID)
        begun = plan(chat)
        try:
            prompt, ways = _continuation(prefill, chat, new_chat(history))
            begun = continue_plan(begun, prefill, prompt, ways, self._model.vocab)
        except MessageError:
            if continue_final_message:
                raise
            begun = plan(new_chat(history))  # the answer is a message of its own
        return images.in_plan(begun)


def render(model: LlamaModel, messages: Sequence[MessageLike], **options: Any) -> str:
    """Return the prompt for messages, which ends where the assistant's answer begins: :meth:`ChatTemplates.render`."""
    return ChatTemplates(model).render(messages, **options)


def prepare(model: LlamaModel, messages: Sequence[MessageLike], **options: Any) -> ChatPlan:
    """Return the prompt for messages, and how to generate and read the answer: :meth:`ChatTemplates.prepare`."""
    return ChatTemplates(model).prepare(messages, **options)


_NOTHING_SAID: Messages = ({"role": "user", "content": ""},)


def _while_reasoning(variables: TemplateVariables, prefill: Prefill | None) -> TemplateVariables:
    """Return variables with which an answer that goes on reasoning is read as what it is."""
    return variables if prefill is None or prefill.content else replace(variables, thinking=True)


def _continuation(prefill: Prefill, before: Chat, whole: Chat) -> tuple[RenderedChat, list[str]]:
    """Return a prompt that ends with what is continued, and what may be the beginning of the answer in it."""
    start, params = before.render()
    try:
        prompt = whole.render_to_the_end()
    except ChatTemplateError:
        prompt = None
    control_text = before.control_text
    said, thought = (control_text.plain(control_text.mark(text)) for text in (prefill.text, prefill.reasoning))
    if prompt is None or not prompt.endswith(said.lstrip()):
        prompt = before.render_by_hand(prefill)
    elif thought.strip() not in prompt and params.thinking_start_tag and params.thinking_end_tags:
        prompt = before.render_by_hand(prefill)  # of an answer that is not complete, no template should drop it
    return prompt, beginnings(prefill, prompt, start, params)
