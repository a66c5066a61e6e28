"""GGUF files: what every writer of one does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf

from cyllama.models import TINY_CHAT

N_VOCAB = 1280  # tokens of the embedded model


def finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    """Write what was added, close the file and return its path."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def copy_tokenizer(writer: gguf.GGUFWriter, replaced: Mapping[str, str] | None = None) -> None:
    """Add the tokenizer and the chat template of the embedded model, some fields with other values."""
    copy_fields(writer, TINY_CHAT, "tokenizer.", replaced or {})


def copy_fields(writer: gguf.GGUFWriter, source: Path, prefix: str, replaced: Mapping[str, str] | None = None) -> None:
    """Add the metadata of another file whose keys begin with a prefix, some fields with other values."""
    for key, field in gguf.GGUFReader(source).fields.items():
        if key.startswith(prefix) and not key.startswith("GGUF.") and key != "general.architecture":
            kind = field.types[0]
            item = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, (replaced or {}).get(key, field.contents()), kind, sub_type=item)


def control_tokens() -> list[int]:
    """Return the control tokens of the embedded model."""
    kinds = gguf.GGUFReader(TINY_CHAT).fields["tokenizer.ggml.token_type"].contents()
    return [token for token, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL]
