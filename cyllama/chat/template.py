"""A chat as the model was trained to read it, and how its answer is constrained and read."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..control_text import ControlText, RenderedChat
from ..errors import ChatTemplateError, ConfigError, MessageError
from ..grammar import ResponseFormatLike, check_grammar, check_response_format
from ..llama.llama_cpp import LlamaChatParams, LlamaChatTemplates, LlamaModel
from . import planning
from .continuation import continue_plan
from .known_templates import resolve_template
from .merging import Messages
from .messages import MessageLike, check_messages
from .native_calls import PROBE, NativeFormat
from .plan import ChatPlan
from .prefill import Prefill, beginnings, split_prefill
from .rendering import Chat, whose
from .tools import ToolChoiceLike, ToolLike, check_tool_choice, check_tools, dump_tools
from .variables import TemplateVariables, check_variables

_MAX_TEMPLATE = 2**20
_CACHED = 16  # templates, and formats of answers

_QUESTION = ({"role": "user", "content": "Hello"},)
_WITHOUT_EOS = '{%- set eos_token = "" -%}'
#: Gives a template the arguments of calls as JSON texts, where it takes no objects.
_WITH_TEXTS = """\
{%- set ns = namespace(messages=[], calls=[]) -%}
{%- for message in messages -%}
    {%- if message.tool_calls -%}
        {%- set ns.calls = [] -%}
        {%- for call in message.tool_calls -%}
            {%- set arguments = call.function.arguments -%}
            {%- set text = arguments if arguments is string else arguments | tojson -%}
            {%- set function = {'name': call.function.name, 'arguments': text} -%}
            {%- set ns.calls = ns.calls + [{'id': call.id, 'type': call.type, 'function': function}] -%}
        {%- endfor -%}
        {%- set ns.messages = ns.messages + [{'role': message.role, 'content': message.content, 'tool_calls': ns.calls,
            'reasoning_content': message.reasoning_content or ''}] -%}
    {%- else -%}
        {%- set ns.messages = ns.messages + [message] -%}
    {%- endif -%}
{%- endfor -%}
{%- set messages = ns.messages -%}
"""
_NO_TEMPLATE = (
    "the model has no chat template: pass one as chat_template, Jinja source, or a prompt as text instead of messages"
)


class ChatTemplates:
    """The chat templates that are used with one model, each compiled once.

    Args:
        model: The model.
        control_text: The texts of its control tokens, if there is one already.
    """

    def __init__(self, model: LlamaModel, control_text: ControlText | None = None) -> None:
        self._model = model
        self.control_text = ControlText(model) if control_text is None else control_text
        self._templates: OrderedDict[str, LlamaChatTemplates] = OrderedDict()
        self._formats: OrderedDict[tuple[Any, ...], LlamaChatParams] = OrderedDict()
        self._natives: OrderedDict[tuple[Any, ...], NativeFormat | None] = OrderedDict()

    def get(self, chat_template: str | None = None) -> LlamaChatTemplates:
        """Return a template compiled: source, a known name or a path, or ``None`` for the model's own.

        Raises:
            ChatTemplateError: The model has no template, or the text is not a valid template.
        """
        if chat_template is None:
            if self._model.chat_template() is None:
                raise ChatTemplateError(_NO_TEMPLATE)
        else:
            chat_template = resolve_template(chat_template, _MAX_TEMPLATE)
        key = chat_template or ""
        template = self._templates.get(key)
        if template is None:
            try:
                template = LlamaChatTemplates(self._model, key)
            except (RuntimeError, ValueError) as error:
                raise ChatTemplateError(f"{whose(chat_template)} cannot be compiled: {error}") from error
            _remember(self._templates, key, template)
        return template

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
        checked, offered = check_messages(messages), check_tools(tools)
        before, prefill = split_prefill(checked, wanted)
        variables = _while_reasoning(variables, prefill)

        def new_chat(chosen: Messages) -> Chat:
            return Chat(self, list(chosen), offered, chat_template, variables)

        if prefill is None:
            return new_chat(before).render(add_generation_prompt=add_generation_prompt)[0]
        try:
            return _continuation(prefill, new_chat(before or _NOTHING_SAID), new_chat(checked))[0]
        except MessageError:
            if continue_final_message:
                raise
            return new_chat(checked).render()[0]

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
        history = check_messages(messages)
        before, prefill = split_prefill(history, continue_final_message)
        variables = _while_reasoning(variables, prefill)

        def new_chat(chosen: Messages) -> Chat:
            return Chat(self, list(chosen), checked, chat_template, variables)

        def plan(chat: Chat) -> ChatPlan:
            if choice.mode != "none":
                return planning.with_tools(chat, choice.allowed(checked), choice.mode, parallel_tool_calls, expected)
            return planning.plain(chat, grammar) if expected is None else planning.with_format(chat, expected)

        if prefill is None:
            return plan(new_chat(before))
        chat = new_chat(before or _NOTHING_SAID)
        begun = plan(chat)
        try:
            prompt, ways = _continuation(prefill, chat, new_chat(history))
            return continue_plan(begun, prefill, prompt, ways, self._model.vocab)
        except MessageError:
            if continue_final_message:
                raise
            return plan(new_chat(history))  # the answer is a message of its own

    def native(
        self,
        chat_template: str | None,
        variables: TemplateVariables,
        messages: Sequence[Mapping[str, Any]] = _QUESTION,
        generation_prompt: str | None = None,
    ) -> NativeFormat | None:
        """Return a template's own format of tool calls, or ``None`` if llama.cpp finds none.

        Args:
            chat_template: Jinja source, or ``None`` for the model's own.
            variables: What the template is told.
            messages: What it is asked after.
            generation_prompt: What the prompt has to end with.
        """
        key = (chat_template, variables.key, generation_prompt)
        if key not in self._natives:
            found = self._find_native(chat_template, variables, messages)
            if found and generation_prompt is not None and found.params.generation_prompt != generation_prompt:
                found = None
            _remember(self._natives, key, found)
        return self._natives[key]

    def _find_native(
        self, chat_template: str | None, variables: TemplateVariables, messages: Sequence[Mapping[str, Any]]
    ) -> NativeFormat | None:
        template = self.get(chat_template)
        source = template.source
        if chat_template is None:
            source = self._model.chat_template("tool_use") or source
        # The end token stands behind a call, and would be taken for a part of it.
        texts = "" if template.caps["supports_object_arguments"] else _WITH_TEXTS
        for text in (None,) if template.specialized else (_WITHOUT_EOS + texts + source, chat_template):
            try:
                params = (template if text is None else self.get(text)).apply(
                    json.dumps(list(messages), ensure_ascii=False),
                    tools=dump_tools([PROBE]),
                    parallel_tool_calls=True,
                    enable_thinking=variables.thinking,
                    chat_template_kwargs=variables.others,
                )
                return NativeFormat(params, source, _two_calls(template, messages))
            except (RuntimeError, ValueError, ChatTemplateError):
                continue
        return None

    def format_of(self, key: tuple[Any, ...], template: LlamaChatTemplates, **options: Any) -> LlamaChatParams:
        """Apply a template, or return what it gave before for the same ``key``; the prompt may be another one."""
        params = self._formats.get(key)
        if params is None:
            params = template.apply(**options)
            _remember(self._formats, key, params)
        return params


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


def _two_calls(template: LlamaChatTemplates, messages: Sequence[Mapping[str, Any]]) -> str:
    """Return how a template writes an answer with two calls, or an empty text if it cannot."""
    if not template.caps["supports_parallel_tool_calls"]:
        return ""
    calls = [
        {"id": f"call0000{i}", "type": "function", "function": {"name": PROBE.name, "arguments": "{}"}} for i in (1, 2)
    ]
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    try:
        before, after = (
            template.apply(json.dumps(chat), force_pure_content=True, add_generation_prompt=False).prompt
            for chat in ([*messages], [*messages, answer])
        )
    except (RuntimeError, ValueError):
        return ""
    return after.removeprefix(before)


def _remember(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    cache[key] = value
    while len(cache) > _CACHED:
        cache.popitem(last=False)
