"""The chat templates of one model, compiled, and what llama.cpp finds out about them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from ..control_text import ControlText
from ..errors import ChatTemplateError
from ..llama.llama_cpp import LlamaChatParams, LlamaChatTemplates, LlamaModel
from .known_templates import resolve_template
from .native_calls import PROBE, NativeFormat
from .tools import dump_tools
from .variables import TemplateVariables

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


class CompiledTemplates:
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


def whose(chat_template: str | None) -> str:
    """Return what errors call a template."""
    return "the model's chat template" if chat_template is None else "the chat template"


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
