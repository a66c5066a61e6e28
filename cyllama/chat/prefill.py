"""A last message of the assistant that the answer continues, instead of following it.

The prompt is the rendered history, cut where the text of the last message ends. If the template loses that text, it is
added behind the beginning of an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigTypeError, MessageError
from ..llama.llama_cpp import LlamaChatParams
from .merging import Messages, as_text
from .parser import Read

_PROBE = "cyllamaprobe"  # text that every format reads as text


@dataclass(frozen=True)
class Prefill:
    """What an answer continues.

    Attributes:
        content: The text that it begins with; if it is empty, the answer continues the reasoning.
        reasoning: The reasoning before it.
    """

    content: str
    reasoning: str = ""

    @property
    def text(self) -> str:
        """What the prompt ends with."""
        return self.content or self.reasoning


def split_prefill(messages: Messages, wanted: bool | None) -> tuple[Messages, Prefill | None]:
    """Return the messages before the one that is continued, and its text; all messages if none is continued.

    Args:
        messages: The history.
        wanted: Whether to continue the last message; ``None`` does so if it is a text of the assistant.

    Raises:
        ConfigTypeError: ``wanted`` is not a bool.
        MessageError: ``wanted`` is true, and the last message cannot be continued.
    """
    if wanted is not None and not isinstance(wanted, bool):
        raise ConfigTypeError(f"continue_final_message is a bool or None, not {wanted!r:.80}")
    last = messages[-1]
    if wanted is False:
        return messages, None
    if last["role"] != "assistant" or last.get("tool_calls"):
        if wanted:
            what = "calls tools" if last.get("tool_calls") else f"is of the role {last['role']!r}"
            raise MessageError(
                f"continue_final_message=True needs a last message of the assistant's words: this {what}"
            )
        return messages, None
    prefill = Prefill(as_text(last["content"]), last.get("reasoning_content", ""))
    if prefill.text:
        return messages[:-1], prefill
    return messages[:-1] if len(messages) > 1 else messages, None  # the message is empty: the answer begins


def end_mark(messages: Messages) -> str:
    """Return a word that none of the messages contains."""
    texts = "\n".join(as_text(message["content"]) + message.get("reasoning_content", "") for message in messages)
    mark = "cyllamaend"
    while mark in texts:
        mark += "x"
    return mark


def put_mark(message: dict[str, Any], mark: str) -> dict[str, Any]:
    """Return a message with a mark at the end of its text."""
    content = message["content"]
    if not as_text(content):
        return {**message, "reasoning_content": message.get("reasoning_content", "") + mark}
    if isinstance(content, str):
        return {**message, "content": content + mark}
    return {**message, "content": [*content[:-1], {**content[-1], "text": content[-1]["text"] + mark}]}


def written_by_hand(prefill: Prefill, params: LlamaChatParams) -> tuple[str, ...] | None:
    """Return what follows the beginning of an answer where the template loses a part of it.

    Args:
        prefill: What the answer continues.
        params: How answers are written.

    Returns:
        Texts, alternately of the template and of the message, or ``None`` if there is no place for the reasoning.
    """
    start, end = params.thinking_start_tag.strip(), next(iter(params.thinking_end_tags), "").strip()
    opening = "" if start and params.generation_prompt.rstrip().endswith(start) else f"{start}\n"
    if not prefill.content:
        return (opening, prefill.reasoning) if start else None
    if not start or not end or (opening and not prefill.reasoning):
        return ("", prefill.content)
    return (opening, prefill.reasoning, f"\n{end}\n\n", prefill.content)


def beginnings(prefill: Prefill, prompt: str, before: str, params: LlamaChatParams) -> list[str]:
    """Return the possible beginnings of the answer in the prompt, for a parser that reads answers from the beginning.

    Args:
        prefill: What the answer continues.
        prompt: The prompt, which ends with it.
        before: The prompt without it, which ends where an answer begins.
        params: How answers are written.
    """
    start, end = params.thinking_start_tag, next(iter(params.thinking_end_tags), "")
    ways = [prompt[len(before) :]] if before and prompt.startswith(before) else []
    ways.append(prefill.text)
    if prefill.content:
        closed = f"{prefill.reasoning}{end}\n\n{prefill.content}"
        ways += [closed, f"{start}{closed}"]
    else:
        ways += [f"{start}\n{prefill.reasoning}", f"{start}{prefill.reasoning}"]
    return list(dict.fromkeys(ways))


def continued(read: Read, prefill: Prefill, ways: Iterable[str]) -> tuple[str, Read]:
    """Return the beginning that is read as the message's own text, and the parser of the rest of the answer.

    Args:
        read: Reads whole answers.
        prefill: What the answer continues.
        ways: The possible beginnings.
    """
    for begin, content, reasoning in _as_read(read, ways):
        known, other = (content, "") if prefill.content else (reasoning, content)
        if known.endswith(prefill.text.lstrip() + _PROBE) and not other:
            known = known.removesuffix(_PROBE)
            return begin, _rest_of(read, begin, *((known, reasoning) if prefill.content else ("", known)))
    return "", read


def _as_read(read: Read, ways: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    for begin in ways:
        try:
            content, reasoning, calls = read(begin + _PROBE, True)
        except (RuntimeError, ValueError):
            continue
        if not calls:
            yield begin, content, reasoning


def _rest_of(read: Read, begin: str, content: str, reasoning: str) -> Read:
    def read_rest(text: str, is_partial: bool) -> tuple[str, str, list[tuple[str, str, str]]]:
        whole, thought, calls = read(begin + text, is_partial)
        return _added(content, whole), _added(reasoning, thought), calls

    return read_rest


def _added(known: str, now: str) -> str:
    """Return the new part of a text; empty if it was held back, or lost a space at its end."""
    n = 0
    while n < min(len(known), len(now)) and known[n] == now[n]:
        n += 1
    return now[n:]
