"""One chat as a prompt, in a form that its template takes without losing anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..control_text import RenderedChat
from ..errors import ChatTemplateError, MessageError
from ..llama.llama_cpp import LlamaChatParams
from . import call_ids, history, merging
from .compiled_templates import CompiledTemplates, whose
from .marking import Marking
from .native_calls import NativeFormat
from .prefill import Prefill, end_mark, put_mark, written_by_hand
from .tools import Tool, describe_native_tools, describe_tools, dump_tools, write_calls
from .variables import TemplateVariables


class Chat:
    """One chat while its plan is made."""

    def __init__(
        self,
        templates: CompiledTemplates,
        messages: list[dict[str, Any]],
        tools: list[Tool],
        chat_template: str | None,
        variables: TemplateVariables,
    ) -> None:
        self.templates = templates
        self.control_text = templates.control_text
        self._source = chat_template
        self._template = templates.get(chat_template)
        self._tools = tools
        self.variables = variables
        self.thinking = variables.thinking
        caps = self._template.caps
        calls = bool(tools) or any(message.get("tool_calls") for message in messages)
        self.native = templates.native(chat_template, variables) if calls else None
        messages = history.order_results(call_ids.unique_ids(messages))
        if self.native is not None and caps["supports_tool_calls"] and not caps["supports_parallel_tool_calls"]:
            messages = history.one_call_each(messages)
        if call_ids.names_calls_by_id(self._template.source):
            messages = call_ids.named_ids(messages)
        self._messages = messages
        self._way: merging.Way = merging.as_it_is
        self._end_mark = ""

    @property
    def is_marked(self) -> bool:
        """Whether the format of answers is one of llama.cpp's own."""
        return self._template.specialized

    def use_own_format(self) -> None:
        """Write calls in the format of :data:`OWN_TEMPLATE`."""
        self.native = None

    def native_here(self, rendered: LlamaChatParams) -> NativeFormat | None:
        """Return the template's format of calls after these messages, or ``None`` if it is not known."""
        if self.native is None or self.native.params.generation_prompt == rendered.generation_prompt:
            return self.native
        return self.templates.native(
            self._source, self.variables, self._said(), generation_prompt=rendered.generation_prompt
        )

    def render_to_the_end(self) -> RenderedChat | None:
        """Render the messages up to the end of the last one's text; ``None`` if the template hides that place."""
        self._end_mark = end_mark(self._messages)
        try:
            marked = self.render(add_generation_prompt=False)[0].marked
        finally:
            mark, self._end_mark = self._end_mark, ""
        end = marked.rfind(mark)
        return None if end < 0 else self.control_text.rendered(marked[:end])

    def render_by_hand(self, prefill: Prefill) -> RenderedChat:
        """Render the messages, and add the text that the answer continues behind them.

        Raises:
            MessageError: There is no place for reasoning.
        """
        prompt, params = self.render()
        texts = written_by_hand(prefill, params)
        if texts is None:
            raise MessageError(f"{whose(self._source)} has no place for the reasoning of the last message")
        ours = (self.control_text.mark(text) if i % 2 else text for i, text in enumerate(texts))
        return self.control_text.rendered(prompt.marked + "".join(ours))

    def render(self, *, add_generation_prompt: bool = True) -> tuple[RenderedChat, LlamaChatParams]:
        """Render the messages; return the prompt, and how an answer without tools is read."""
        result = self._render_some_way(add_generation_prompt)
        lost = history.lost_texts(self._messages, result[0])
        for other in history.alternatives(self._messages) if lost else ():
            try:
                rendered = self._render(other, add_generation_prompt)
            except ChatTemplateError:
                continue
            if history.lost_texts(self._messages, rendered[0]) < lost:
                self._messages = other
                return rendered
        return result

    def _render_some_way(self, add_generation_prompt: bool) -> tuple[RenderedChat, LlamaChatParams]:
        """Render the messages as they are if the template takes them, else rewritten with the same content."""
        refused: ChatTemplateError | None = None
        best: tuple[int, list[dict[str, Any]], merging.Way, tuple[RenderedChat, LlamaChatParams]] | None = None
        for messages in self._with_ids():
            self._messages, described = messages, self._described(messages, self._tools)
            for way in merging.ways(described, has_system_role=self._template.caps["supports_system_role"]):
                self._way = way
                try:
                    result = self._render(messages, add_generation_prompt)
                except ChatTemplateError as error:
                    refused = refused or error
                    continue
                dropped = self._count_dropped(described, result[0], add_generation_prompt)
                if not dropped:
                    return result
                if best is None or dropped < best[0]:
                    best = dropped, messages, way, result
        if best is not None:
            _, self._messages, self._way, result = best
            return result
        if self.native is None or refused is None or not any(message["role"] == "tool" for message in self._messages):
            raise refused or ChatTemplateError(f"{whose(self._source)} refuses these messages")
        self.native = None  # calls and their results in words
        return self._render_some_way(add_generation_prompt)

    def _with_ids(self) -> Iterator[list[dict[str, Any]]]:
        yield self._messages
        if not call_ids.are_nine(self._messages):
            yield call_ids.nine_letters_or_digits(self._messages)

    def _count_dropped(self, described: merging.Messages, prompt: str, add_generation_prompt: bool) -> int:
        """Return how many system messages the template leaves out, if the history is rewritten this way."""
        doubtful = merging.doubtful_systems(described, prompt)
        if not doubtful:
            return 0
        way, self._way = self._way, merging.with_probes(self._way, doubtful)
        try:
            return merging.missing_probes(self._render(self._messages, add_generation_prompt)[0], doubtful)
        except ChatTemplateError:
            return 0
        finally:
            self._way = way

    def _described(self, messages: Sequence[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
        """Return messages that describe the tools and calls which the template leaves out."""
        if self.native is None:
            return describe_tools(messages, tools)
        caps = self._template.caps
        described = list(messages)
        if not caps["supports_tool_calls"]:
            described = write_calls(described, self.native.example)
        return described if caps["supports_tools"] else describe_native_tools(described, tools, self.native.example)

    def _render(
        self, messages: Sequence[dict[str, Any]], add_generation_prompt: bool
    ) -> tuple[RenderedChat, LlamaChatParams]:
        control_text = self.templates.control_text
        marking = Marking(control_text)
        text, params = self._apply(marking, messages, add_generation_prompt)
        prompt = control_text.rendered(text)
        # Some templates write "<" + name + ">". With a mark in every such name, comparisons of them may fail.
        if inside := control_text.enclosed(prompt, marking.texts, self._template.source):
            text, _ = self._apply(Marking(control_text, inside), messages, add_generation_prompt)
            marked = control_text.rendered(text)
            prompt = marked if marked == prompt else prompt
        return prompt, params

    def _apply(
        self, marking: Marking, messages: Sequence[dict[str, Any]], add_generation_prompt: bool
    ) -> tuple[str, LlamaChatParams]:
        # Our own text about tools counts as the template's text; the texts of messages and tools do not.
        offered = marking.tools(self._tools)
        tools = dump_tools(offered) if self.native is not None and self._template.caps["supports_tools"] else ""
        marked = marking.messages(messages)
        if self._end_mark:
            marked[-1] = put_mark(marked[-1], self._end_mark)
        messages = self._way(self._described(marked, offered))
        options: dict[str, Any] = {
            "messages": json.dumps(messages, ensure_ascii=False),
            "tools": tools,
            "tool_choice": "none",
            "add_generation_prompt": add_generation_prompt,
            "enable_thinking": self.thinking,
            "chat_template_kwargs": marking.variables(self.variables.others),
        }
        if self._template.specialized:
            return self._render_specialized(options)
        try:
            rendered = self._template.apply(**options, force_pure_content=True)
        except (RuntimeError, ValueError) as error:
            raise ChatTemplateError(f"{whose(self._source)} refuses these messages: {_reason(error)}") from error
        # To find the format of answers, llama.cpp renders the template a hundred times; messages do not change it.
        key = ("plain", self._source, rendered.generation_prompt, tools, add_generation_prompt, self.variables.key)
        try:
            params = self.templates.format_of(key, self._template, **options)
        except (RuntimeError, ValueError):  # the format is unknown: the whole answer is content
            params = rendered
        return rendered.prompt, params if params.generation_prompt == rendered.generation_prompt else rendered

    def _render_specialized(self, options: dict[str, Any]) -> tuple[str, LlamaChatParams]:
        """Render the messages as llama.cpp does for this template only."""
        try:
            params = self._template.apply(**options)
        except (RuntimeError, ValueError) as error:
            try:
                params = self._template.apply(**options, force_pure_content=True)
            except (RuntimeError, ValueError):
                raise ChatTemplateError(f"{whose(self._source)} refuses these messages: {_reason(error)}") from error
        return params.prompt, params

    def format(self, rendered: LlamaChatParams, **options: Any) -> LlamaChatParams | None:
        """Return how the template writes an answer, or ``None`` if that is unknown."""
        key = (self._source, rendered.generation_prompt, self.variables.key, *sorted(options.items()))
        try:
            params = self.templates.format_of(
                key,
                self._template,
                messages=json.dumps(self._said(), ensure_ascii=False),
                tool_choice="none",
                enable_thinking=self.thinking,
                chat_template_kwargs=self.variables.others,
                **options,
            )
        except (RuntimeError, ValueError):
            return None
        return params if params.generation_prompt == rendered.generation_prompt else None

    def _said(self) -> list[dict[str, Any]]:
        """Return the messages as they are rendered."""
        return list(self._way(self._described(self._messages, self._tools)))


def _reason(error: Exception) -> str:
    """Return a template's own message about what it refuses, without the place in its source."""
    found = re.search(r"Jinja Exception: (.*)", str(error))
    return found[1] if found else str(error).strip()
