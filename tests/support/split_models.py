"""Models in several files."""

from __future__ import annotations

from pathlib import Path

import gguf

from cyllama.models import TINY_CHAT

from .random_models.files import copy_fields, finish


def write_split_model(folder: Path, name: str, n_parts: int) -> list[Path]:
    """Write the embedded model in several files, as ``llama-gguf-split`` does; return them in their order."""
    tensors = gguf.GGUFReader(TINY_CHAT).tensors
    writer = gguf.GGUFWriter(folder / f"{name}.gguf", "llama", split_max_tensors=-(-len(tensors) // n_parts))
    copy_fields(writer, TINY_CHAT, "")
    for tensor in tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    finish(writer, folder / name)
    paths = sorted(folder.glob(f"{name}-*.gguf"))
    assert len(paths) == n_parts
    return paths
