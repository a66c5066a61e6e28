"""LoRA adapters, and models that have them merged into their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from .files import copy_fields, finish


def write_random_adapter(
    path: Path,
    model: Path,
    seed: int = 0,
    *,
    rank: int = 4,
    alpha: float | None = 8.0,
    std: float = 0.08,
    embeddings: bool = False,
    invocation: list[int] | None = None,
) -> Path:
    """Write a LoRA adapter for every matrix of a model's layers.

    Args:
        path: The file to write.
        model: The file of the model, with weights of type F32.
        seed: Of the weights.
        rank: Of every matrix.
        alpha: What the scale is multiplied with, times 1 / rank; ``None`` leaves it out.
        std: How much of a weight's size it adds, about.
        embeddings: Whether the embeddings are changed as well.
        invocation: Token ids from which on it is to be used, which makes it an activated LoRA.

    Returns:
        The path.
    """
    reader, rng = gguf.GGUFReader(model), np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_name(f"random-{seed}")
    if alpha is not None:
        writer.add_float32("adapter.lora.alpha", alpha)
    if invocation is not None:
        writer.add_array("adapter.alora.invocation_tokens", invocation)
        writer.kv_data[0]["adapter.alora.invocation_tokens"].sub_type = gguf.GGUFValueType.UINT32
    for tensor in reader.tensors:
        n_in, n_out = (int(n) for n in tensor.shape[:2]) if len(tensor.shape) == 2 else (0, 0)
        is_layer = tensor.name.startswith("blk.") and tensor.name.endswith(".weight") and "conv" not in tensor.name
        size = std * float(np.std(tensor.data)) * (rank / (alpha or rank))
        a, b = rng.standard_normal((rank, n_in)), size * rng.standard_normal((n_out, rank))
        if is_layer and n_in:
            writer.add_tensor(f"{tensor.name}.lora_a", a.astype(np.float32))
            writer.add_tensor(f"{tensor.name}.lora_b", b.astype(np.float32))
        elif embeddings and tensor.name == "token_embd.weight":
            writer.add_tensor(f"{tensor.name}.lora_a", b.astype(np.float32))
            writer.add_tensor(f"{tensor.name}.lora_b", a.T.astype(np.float32).copy())
    return finish(writer, path)


def write_merged_model(path: Path, model: Path, adapters: dict[Path, float]) -> Path:
    """Write a model of type F32 whose weights have adapters, multiplied by their scales, added to them."""
    reader = gguf.GGUFReader(model)
    weights = {tensor.name: tensor.data.astype(np.float64) for tensor in reader.tensors}
    for file, scale in adapters.items():
        adapter = gguf.GGUFReader(file)
        parts = {tensor.name: tensor.data.astype(np.float64) for tensor in adapter.tensors}
        alpha = adapter.fields.get("adapter.lora.alpha")
        for name in {part.rsplit(".lora_", 1)[0] for part in parts}:
            a, b = parts[f"{name}.lora_a"], parts[f"{name}.lora_b"]
            rank = b.shape[1]
            factor = scale if alpha is None else scale * float(alpha.contents()) / rank
            weights[name] += factor * (a @ b.T if name == "token_embd.weight" else b @ a)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    copy_fields(writer, model, "")
    for name, values in weights.items():
        writer.add_tensor(name, values.astype(np.float32))
    return finish(writer, path)


def write_adapter(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    raw_types: Mapping[str, gguf.GGMLQuantizationType] | None = None,
) -> Path:
    """Write an adapter of these tensors, those in ``raw_types`` with another type than their array's."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for name, values in tensors.items():
        writer.add_tensor(name, values, raw_dtype=(raw_types or {}).get(name))
    return finish(writer, path)
