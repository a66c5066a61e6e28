"""Content blocks of any provider, as text."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from cyllama import Image

_MEDIA = {
    "image": "an image",
    "image_url": "an image",
    "input_image": "an image",
    "image_generation_call": "an image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
    "output_audio": "audio",
    "video": "a video",
    "video_url": "a video",
    "document": "a document",
    "file": "a file",
    "input_file": "a file",
    "media": "a file",
}
_TEXTS = frozenset(("text", "input_text", "output_text", "summary_text", "text-plain", None))
_REASONING = frozenset(("reasoning", "thinking", "reasoning_content", "redacted_thinking"))
_CALLS = frozenset(("tool_call", "tool_use", "function_call", "custom_tool_call"))
#: Parts of calls that the message lists elsewhere, and marks without content.
_SILENT = frozenset(("tool_call_chunk", "invalid_tool_call", "input_json_delta", "cachePoint", "cache_point"))
#: Keys that mean nothing to another model: ids, states, signatures, encrypted texts.
_NOISE = frozenset(
    (
        *("type", "id", "index", "status", "call_id", "item_id", "tool_use_id", "tool_call_id", "toolUseId", "caller"),
        *("container_id", "approval_request_id", "cache_control", "annotations", "citations", "extras", "logprobs"),
        *("signature", "thought_signature", "encrypted_content", "encrypted_index", "encrypted_stdout", "source_type"),
        *("mime_type", "media_type", "page_age"),
    )
)
_BINARY = re.compile(r"(data:[\w/+.-]+;base64,)?[A-Za-z0-9+/_-]{200,}={0,2}", re.ASCII)

PartKind = Literal["text", "words", "image", "reasoning", "call", "nothing", "unreadable"]


class Part(NamedTuple):
    """A content block, as a model can read it.

    Attributes:
        kind: "text" for text as it is; "words" for a description of something else; "image"; "reasoning"; "call" for
            the call of a tool; "nothing" for a block without content; or "unreadable".
        text: The text; the kind of content where it is unreadable.
        image: The image.
    """

    kind: PartKind
    text: str = ""
    image: Image | None = None


def read_block(block: Any) -> Part:
    """Return what a text model can read of a content block."""
    if isinstance(block, str):
        return Part("text", block)
    if not isinstance(block, Mapping):
        return Part("nothing") if block is None else Part("text", json.dumps(block, ensure_ascii=False, default=str))
    kind = _kind(block)
    if kind == "non_standard" and isinstance(value := block.get("value"), Mapping):
        return read_block(value)
    if kind in _SILENT or (kind is None and block.keys() & _SILENT):
        return Part("nothing")
    if kind in _CALLS or isinstance(block.get("toolUse"), Mapping):
        return Part("call")
    if kind in _REASONING or "reasoningContent" in block:
        return _read_reasoning(block)
    if (text := _text_of(block)) is not None:
        return Part("text", text)
    media = _MEDIA.get(kind or "") or next(
        (what for key, what in _MEDIA.items() if kind is None and key in block), None
    )
    words = None if media else _in_words(block)
    return Part("unreadable", media or f"a block of type {kind!r:.80}") if words is None else Part("words", words)


def call_of(block: Mapping[str, Any]) -> tuple[str, str, Any]:
    """Return the id, name and arguments of a block that calls a tool. Arguments may be JSON text."""
    inner = block["toolUse"] if isinstance(block.get("toolUse"), Mapping) else block
    call_id = inner.get("call_id") or inner.get("toolUseId") or inner.get("id") or ""
    names = ("args", "input", "arguments")
    arguments = next((inner[name] for name in names if inner.get(name) is not None), {})
    return str(call_id), str(inner.get("name") or ""), arguments


# ------------------------------------------------------------------------------------------------------------- details


def _kind(block: Mapping[str, Any]) -> str | None:
    kind = block.get("type")
    return kind if isinstance(kind, str) else None


def _read_reasoning(block: Mapping[str, Any]) -> Part:
    for key in ("reasoning", "thinking", "reasoning_content", "reasoningContent", "summary", "text"):
        if text := "".join(_texts_in(block.get(key))):
            return Part("reasoning", text)
    hidden = block.get("type") == "redacted_thinking" or "encrypted_content" in block
    return Part("unreadable", "reasoning that is encrypted") if hidden else Part("nothing")


def _texts_in(value: Any) -> Iterator[str]:
    """Yield texts at any depth: strings, and the values of a dict's text keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key in ("text", "reasoningText", "content"):
            yield from _texts_in(value.get(key))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts_in(part)


def _text_of(block: Mapping[str, Any]) -> str | None:
    """Return the text or the JSON that a block contains, or `None`."""
    kind, text = _kind(block), block.get("text")
    if isinstance(text, str) and (kind in _TEXTS or block.get("source_type") == "text"):
        return text
    if kind == "refusal":
        return str(block.get("refusal") or "")
    if "json" in block and kind in ("json", None):
        return json.dumps(block["json"], ensure_ascii=False, default=str)
    if kind == "search_result":
        return "\n".join([*_texts_in(block.get("title")), *_texts_in(block.get("content"))])
    if guarded := "".join(_texts_in(block.get("guard_content") or block.get("guardContent"))):
        return guarded
    for key in ("transcript", "text"):
        if kind in _MEDIA and isinstance(block.get(key), str):
            return block[key]
    return _text_of_document(block)


def _text_of_document(block: Mapping[str, Any]) -> str | None:
    source = block.get("source")
    if isinstance(source, Mapping):
        if source.get("type") == "text" and isinstance(source.get("data"), str):
            return source["data"]
        if source.get("type") == "content":
            return "\n".join(_texts_in(source.get("content"))) or None
    resource = block.get("resource")
    if isinstance(resource, Mapping) and isinstance(resource.get("text"), str):
        return resource["text"]
    data = block.get("base64") or block.get("data")
    if isinstance(data, str) and str(block.get("mime_type", "")).startswith("text/"):
        try:
            return base64.b64decode(data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def _in_words(block: Mapping[str, Any]) -> str | None:
    """Return a block as one line: its kind, and what can be read of it; `None` if nothing can."""
    content = _readable({key: value for key, value in block.items() if key != "name"})
    if content is None:
        return None
    label = block.get("name") or block.get("type") or "data"
    [value, *others] = content.values() if isinstance(content, dict) else [content]
    shown = content if others else value
    return f"[{label}: {shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, default=str)}]"


def _readable(value: Any) -> Any:
    """Return the readable parts of a value, or `None`."""
    if isinstance(value, Mapping):
        parts = {str(key): _readable(part) for key, part in value.items() if key not in _NOISE}
        return {key: part for key, part in parts.items() if part is not None} or None
    if isinstance(value, (list, tuple)):
        return [part for part in map(_readable, value) if part is not None] or None
    if isinstance(value, str):
        return None if not value or _BINARY.fullmatch(value) else value
    return value if isinstance(value, (bool, int, float)) else None
