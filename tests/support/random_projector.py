"""Tiny projectors with random weights, for the models of ``random_models``: images become embeddings of such a model.

What an image turns into is noise, but it depends on all of its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np

from .random_models.files import finish
from .random_models.tensors import N_EMBD

IMAGE_SIZE = 32  # pixels in each direction, to which every image is resized
PATCH_SIZE = 8
_N_VISION, _N_HEAD, _N_FF, _N_LAYER = 32, 2, 64, 2
_N_PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2

Weights = dict[str, np.ndarray]
Normal = Callable[..., np.ndarray]


def _llava(normal: Normal, n_embd: int) -> Weights:
    """Return the weights of a perceptron, which gives every patch a token."""
    return {
        "mm.0.weight": normal(n_embd, _N_VISION),
        "mm.0.bias": normal(n_embd, scale=0.1),
        "mm.2.weight": normal(n_embd, n_embd),
        "mm.2.bias": normal(n_embd, scale=0.1),
    }


def _gemma3(normal: Normal, n_embd: int) -> Weights:
    """Return the weights behind the average of 2 x 2 patches, whose tokens attend to each other."""
    return {
        "mm.input_projection.weight": normal(_N_VISION, n_embd, scale=_N_VISION**-0.5),
        "mm.soft_emb_norm.weight": np.ones(_N_VISION),
    }


class _Kind(NamedTuple):
    """How to write a kind of projector.

    Attributes:
        name: What llama.cpp calls it.
        weights: Returns the weights behind those of the vision model.
        n_tokens: Tokens of an image.
        merge: Patches in each direction that become one token.
    """

    name: str
    weights: Callable[[Normal, int], Weights]
    n_tokens: int
    merge: int = 1


_KINDS = {
    "llava": _Kind("mlp", _llava, _N_PATCHES),
    "gemma3": _Kind("gemma3", _gemma3, _N_PATCHES // 4, merge=2),
}
PROJECTORS = tuple(_KINDS)


def n_image_tokens(kind: str) -> int:
    """Return how many tokens an image becomes, without those around it."""
    return _KINDS[kind].n_tokens


def write_random_projector(
    path: Path,
    kind: str,
    seed: int = 0,
    *,
    n_embd: int = N_EMBD,
    numbers: Mapping[str, int | None] | None = None,
    without: Collection[str] = (),
    half: Collection[str] = (),
    n_ff: int = _N_FF,
) -> Path:
    """Write a projector of 100 KB.

    Args:
        path: The file to write.
        kind: One of ``PROJECTORS``: "llava" for causal models such as "llama", "gemma3" for those of that architecture.
        seed: Of the weights.
        n_embd: Size of the embeddings of the model.
        numbers: Other numbers of the metadata, by their name after "clip.vision."; ``None`` leaves one out.
        without: Tensors that are left out.
        half: Tensors that have the type F16.
        n_ff: Numbers between the layers of a perceptron: with many, tensors and computing take so much more memory.

    Returns:
        The path.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float | None = None) -> np.ndarray:
        return rng.standard_normal(shape) * (shape[-1] ** -0.5 if scale is None else scale)

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_name(f"random-{kind}")
    _write_metadata(writer, _KINDS[kind], n_embd, {"feed_forward_length": n_ff} | dict(numbers or {}))
    for name, values in (_vision(normal, kind, n_ff) | _KINDS[kind].weights(normal, n_embd)).items():
        if name not in without:
            writer.add_tensor(name, values.astype(np.float16 if name in half else np.float32))
    return finish(writer, path)


def _write_metadata(writer: gguf.GGUFWriter, kind: _Kind, n_embd: int, replaced: Mapping[str, int | None]) -> None:
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", kind.name)
    writer.add_bool("clip.use_gelu", True)
    sizes: dict[str, int | None] = {
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "embedding_length": _N_VISION,
        "feed_forward_length": _N_FF,
        "block_count": _N_LAYER,
        "projection_dim": n_embd,
        "attention.head_count": _N_HEAD,
        "projector.scale_factor": kind.merge,
    }
    for name, value in (sizes | dict(replaced)).items():
        if value is not None:
            writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])


def _vision(normal: Normal, kind: str, n_ff: int) -> Weights:
    """Return the weights of a vision transformer."""
    weights = {
        "v.patch_embd.weight": normal(_N_VISION, 3, PATCH_SIZE, PATCH_SIZE, scale=0.1),
        "v.position_embd.weight": normal(_N_PATCHES, _N_VISION, scale=0.5),
    }
    ends = ("post_ln",) if kind == "gemma3" else ("pre_ln",)
    norms = [*(f"v.{end}" for end in ends), *(f"v.blk.{i}.{ln}" for i in range(_N_LAYER) for ln in ("ln1", "ln2"))]
    for name in norms:
        weights |= {f"{name}.weight": np.ones(_N_VISION), f"{name}.bias": np.zeros(_N_VISION)}
    matrices = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_out"), (_N_VISION, _N_VISION))
    matrices |= {"ffn_up": (n_ff, _N_VISION), "ffn_down": (_N_VISION, n_ff)}
    for i in range(_N_LAYER):
        for name, shape in matrices.items():
            wide = n_ff > _N_FF and n_ff in shape  # zeros, since random numbers take seconds
            weights[f"v.blk.{i}.{name}.weight"] = np.zeros(shape, np.float32) if wide else normal(*shape)
            weights[f"v.blk.{i}.{name}.bias"] = normal(shape[0], scale=0.1)
    return weights
