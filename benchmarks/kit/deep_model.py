"""A model with more layers that says nearly the same: a target for which the one with its own layers is a draft model.

The layers that are added are copies of its own whose outputs are scaled down, so that a step takes several times as
long, and the next token is the same one nearly always (``strength=0``: always) or less often.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

OUTPUTS = ("attn_output.weight", "ffn_down.weight")  # what a layer adds to the stream


def write_deep_model(source: Path, path: Path, times: int, strength: float) -> Path:
    """Write a model of ``times`` as many layers, unless the file is there.

    Args:
        source: A model.
        path: The file to write.
        times: How many times as many layers.
        strength: Factor of what an added layer adds.

    Returns:
        The file.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    n_layers = int(reader.fields[f"{architecture}.block_count"].contents())
    writer = gguf.GGUFWriter(partial, architecture)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = n_layers * times if key == f"{architecture}.block_count" else field.contents()
        kind = field.types[0]
        writer.add_key_value(key, value, kind, sub_type=field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for name, data, kind in _tensors(reader, n_layers, times, strength):
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)
    return path


def _tensors(
    reader: gguf.GGUFReader, n_layers: int, times: int, strength: float
) -> Iterator[tuple[str, np.ndarray, gguf.GGMLQuantizationType]]:
    """Yield the tensors of the model: matrices of layers in Q4_0, the rest as it is."""
    for tensor in reader.tensors:
        kind = tensor.tensor_type
        if not tensor.name.startswith("blk."):
            yield tensor.name, tensor.data, kind
            continue
        _, layer, rest = tensor.name.split(".", 2)
        weights = gguf.quants.dequantize(tensor.data, kind)
        for i in range(times):
            factor = strength if i and rest in OUTPUTS else 1.0
            name = f"blk.{int(layer) + i * n_layers}.{rest}"
            if weights.ndim == 1:
                yield name, weights, gguf.GGMLQuantizationType.F32
            else:
                q4_0 = gguf.GGMLQuantizationType.Q4_0
                yield name, gguf.quants.quantize(weights * np.float32(factor), q4_0), q4_0
