"""Models that generate text, one of every kind of memory that llama.cpp has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np

from .files import N_VOCAB, control_tokens, copy_tokenizer, finish
from .tensors import N_EMBD, N_FF, N_HEAD, Tensors, add_attention, add_feed_forward, add_layer_norm

#: The chat template of a model that reasons before it answers.
REASONING = """\
{%- for message in messages %}
    {{- "<|im_start|>" + message.role + "\\n" }}
    {%- if message.reasoning_content %}
        {{- "<think>\\n" + message.reasoning_content + "\\n</think>\\n\\n" }}
    {%- endif %}
    {{- message.content + "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\\n<think>\\n" }}
{%- endif %}
"""

SLIDING_WINDOW = 16  # small, so that short sequences leave it
REAL_SLIDING_WINDOW = 512  # as of real models: larger than many contexts
N_CTX_TRAIN = 8192

_D_CONV, _D_INNER, _D_STATE, _DT_RANK, _N_GROUP = 4, 2 * N_EMBD, 16, 4, 1
_SHORTCONV = 4

# With every token, the state h of a Mamba becomes exp(dt * a) * h + dt * b * x. With dt near softplus(-3) = 0.05 and a
# between -0.3 and -0.01, half of it is left after 50 to 1400 tokens. d, which lets x pass by the state, is small.


def _mamba(tensors: Tensors, block: str, *, norms: bool = False) -> None:
    tensors.normal(f"{block}.ssm_in.weight", (2 * _D_INNER, N_EMBD), 2 * N_EMBD**-0.5)
    tensors.normal(f"{block}.ssm_conv1d.weight", (_D_INNER, _D_CONV))
    tensors.normal(f"{block}.ssm_conv1d.bias", (_D_INNER,), 0.1)
    tensors.normal(f"{block}.ssm_x.weight", (_DT_RANK + 2 * _D_STATE, _D_INNER), 2 * _D_INNER**-0.5)
    tensors.normal(f"{block}.ssm_dt.weight", (_D_INNER, _DT_RANK), 0.2)
    tensors.uniform(f"{block}.ssm_dt.bias", (_D_INNER,), -3.5, -2.5)
    tensors.uniform(f"{block}.ssm_a", (_D_INNER, _D_STATE), -0.3, -0.01)
    tensors.normal(f"{block}.ssm_d", (_D_INNER,), 0.1)
    tensors.normal(f"{block}.ssm_out.weight", (N_EMBD, _D_INNER))
    if norms:
        tensors.ones(f"{block}.ssm_dt_norm.weight", _DT_RANK)
        tensors.ones(f"{block}.ssm_b_norm.weight", _D_STATE)
        tensors.ones(f"{block}.ssm_c_norm.weight", _D_STATE)


def _mamba2(tensors: Tensors, block: str) -> None:
    conv_width = _D_INNER + 2 * _N_GROUP * _D_STATE
    tensors.normal(f"{block}.ssm_in.weight", (_D_INNER + conv_width + _DT_RANK, N_EMBD))
    tensors.normal(f"{block}.ssm_conv1d.weight", (conv_width, _D_CONV), 1.0)
    tensors.normal(f"{block}.ssm_conv1d.bias", (conv_width,), 0.1)
    tensors.uniform(f"{block}.ssm_dt.bias", (_DT_RANK,), -3.5, -2.5)
    tensors.uniform(f"{block}.ssm_a", (_DT_RANK, 1), -0.3, -0.01)
    tensors.normal(f"{block}.ssm_d", (_DT_RANK, 1), 0.1)
    tensors.ones(f"{block}.ssm_norm.weight", _N_GROUP, _D_INNER // _N_GROUP)
    tensors.normal(f"{block}.ssm_out.weight", (N_EMBD, _D_INNER))


def _write_ssm_sizes(writer: gguf.GGUFWriter) -> None:
    writer.add_ssm_conv_kernel(_D_CONV)
    writer.add_ssm_inner_size(_D_INNER)
    writer.add_ssm_state_size(_D_STATE)
    writer.add_ssm_time_step_rank(_DT_RANK)


def _write_llama(tensors: Tensors) -> None:
    """Attention to everything."""
    tensors.writer.add_head_count_kv(N_HEAD // 2)
    for i in range(2):
        tensors.ones(f"blk.{i}.attn_norm.weight", N_EMBD)
        add_attention(tensors, f"blk.{i}", n_head_kv=N_HEAD // 2)
        add_feed_forward(tensors, f"blk.{i}")


def _write_mamba(tensors: Tensors) -> None:
    """A recurrent state."""
    tensors.writer.add_head_count_kv(0)
    _write_ssm_sizes(tensors.writer)
    for i in range(3):
        tensors.ones(f"blk.{i}.attn_norm.weight", N_EMBD)
        _mamba(tensors, f"blk.{i}")


def _write_mamba2(tensors: Tensors) -> None:
    """A recurrent state."""
    tensors.writer.add_head_count_kv(0)
    tensors.writer.add_ssm_group_count(_N_GROUP)
    _write_ssm_sizes(tensors.writer)
    for i in range(3):
        tensors.ones(f"blk.{i}.attn_norm.weight", N_EMBD)
        _mamba2(tensors, f"blk.{i}")


def _write_jamba(tensors: Tensors) -> None:
    """A recurrent state in two layers, attention in between."""
    n_head_kv = [0, N_HEAD // 2, 0]
    tensors.writer.add_head_count_kv(n_head_kv)
    _write_ssm_sizes(tensors.writer)
    for i, heads in enumerate(n_head_kv):
        tensors.ones(f"blk.{i}.attn_norm.weight", N_EMBD)
        if heads:
            add_attention(tensors, f"blk.{i}", n_head_kv=heads)
        else:
            _mamba(tensors, f"blk.{i}", norms=True)
        add_feed_forward(tensors, f"blk.{i}")


def _write_lfm2(tensors: Tensors) -> None:
    """Short convolutions, whose state is the last few tokens, and attention; the only one here that takes n_rs_seq."""
    n_head_kv = [0, N_HEAD // 2, 0, N_HEAD // 2]
    tensors.writer.add_head_count_kv(n_head_kv)
    tensors.writer.add_shortconv_l_cache(_SHORTCONV)
    if tensors.sliding_window is not None:
        tensors.writer.add_sliding_window(tensors.sliding_window)
    for i, heads in enumerate(n_head_kv):
        tensors.ones(f"blk.{i}.attn_norm.weight", N_EMBD)
        if heads:
            add_attention(tensors, f"blk.{i}", n_head_kv=heads)
            tensors.ones(f"blk.{i}.attn_q_norm.weight", N_EMBD // N_HEAD)
            tensors.ones(f"blk.{i}.attn_k_norm.weight", N_EMBD // N_HEAD)
        else:
            tensors.normal(f"blk.{i}.shortconv.conv.weight", (N_EMBD, _SHORTCONV))
            tensors.normal(f"blk.{i}.shortconv.in_proj.weight", (3 * N_EMBD, N_EMBD))
            tensors.normal(f"blk.{i}.shortconv.out_proj.weight", (N_EMBD, N_EMBD))
        add_feed_forward(tensors, f"blk.{i}")


def _write_gemma3(tensors: Tensors) -> None:
    """Attention to the last tokens in every other layer, to everything in the others."""
    writer, head = tensors.writer, N_EMBD // N_HEAD
    writer.add_head_count_kv(N_HEAD // 2)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_sliding_window(tensors.sliding_window or SLIDING_WINDOW)
    writer.add_sliding_window_pattern(2)
    for i in range(4):
        tensors.ones(f"blk.{i}.attn_norm.weight", N_EMBD)
        add_attention(tensors, f"blk.{i}", n_head_kv=N_HEAD // 2)
        tensors.add(f"blk.{i}.attn_q_norm.weight", np.full(head, 1.2))
        tensors.add(f"blk.{i}.attn_k_norm.weight", np.full(head, 1.2))
        tensors.add(f"blk.{i}.post_attention_norm.weight", np.full(N_EMBD, 0.5))
        add_feed_forward(tensors, f"blk.{i}")
        tensors.add(f"blk.{i}.post_ffw_norm.weight", np.full(N_EMBD, 0.5))


class _Kind(NamedTuple):
    """How to write an architecture."""

    write: Callable[[Tensors], None]
    n_layer: int
    output_norm: str = "output_norm"
    embedding_scale: float = 1.0  # by which it multiplies embeddings


_KINDS = {
    "llama": _Kind(_write_llama, 2),
    "gemma3": _Kind(_write_gemma3, 4, embedding_scale=N_EMBD**0.5),
    "mamba": _Kind(_write_mamba, 3),
    "mamba2": _Kind(_write_mamba2, 3),
    "jamba": _Kind(_write_jamba, 3),
    "lfm2": _Kind(_write_lfm2, 4, output_norm="token_embd_norm"),
}

ARCHITECTURES = tuple(_KINDS)
SLIDING = ("gemma3",)  # forget in some layers what left a window
RECURRENT = ("mamba", "mamba2")  # keep nothing but a state, which cannot go back
HYBRID = ("jamba", "lfm2")  # a state and a KV cache side by side


def write_random_model(
    path: Path,
    architecture: str,
    seed: int = 0,
    *,
    sentencepiece: bool = False,
    chat_template: str | None = None,
    endless: bool = False,
    n_ctx_train: int = N_CTX_TRAIN,
    recommended: Mapping[str, str | int | float] | None = None,
    sliding_window: int | None = None,
    name: str | None = None,
) -> Path:
    """Write a model of 1 to 2 MB.

    Args:
        path: The file to write.
        architecture: One of ``ARCHITECTURES``.
        seed: Of the weights.
        sentencepiece: Give it a vocabulary that puts a space before every text, as Llama 2 has it.
        chat_template: Jinja source of its template; by default that of the embedded model.
        endless: Let it never find a control token the most likely one, so that it does not come to an end by itself.
        n_ctx_train: Its context length, in tokens.
        recommended: The sampling that the file recommends, ``general.sampling.*``.
        sliding_window: Tokens that windowed layers attend to: by default ``SLIDING_WINDOW`` where an architecture
            always has such layers, and everything where it need not.
        name: Its name; by default "random-" and the architecture.

    Returns:
        The path.
    """
    kind = _KINDS[architecture]
    writer = gguf.GGUFWriter(path, architecture)
    if sentencepiece:
        _add_sentencepiece(writer)
    else:
        copy_tokenizer(writer, {} if chat_template is None else {"tokenizer.chat_template": chat_template})
    writer.add_name(name or f"random-{architecture}")
    for name, value in (recommended or {}).items():
        add = {str: writer.add_string, int: writer.add_int32, float: writer.add_float32}[type(value)]
        add(f"general.sampling.{name}", value)
    writer.add_vocab_size(N_VOCAB)
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(kind.n_layer)
    writer.add_feed_forward_length(0 if architecture in RECURRENT else N_FF)
    writer.add_head_count(0 if architecture in RECURRENT else N_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)

    tensors = Tensors(writer, seed, sliding_window)
    tensors.normal("token_embd.weight", (N_VOCAB, N_EMBD), 0.5 / kind.embedding_scale)
    tensors.ones(f"{kind.output_norm}.weight", N_EMBD)
    tensors.normal("output.weight", (N_VOCAB, N_EMBD), 0.4, zero_rows=control_tokens() if endless else ())
    kind.write(tensors)
    return finish(writer, path)


def write_random_gpt2(path: Path, n_positions: int, seed: int = 0) -> Path:
    """Write a model that generates, and has learned embeddings of so many positions."""
    writer = gguf.GGUFWriter(path, "gpt2")
    copy_tokenizer(writer, {})
    writer.add_name("random-gpt2")
    writer.add_context_length(n_positions)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(1)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_layer_norm_eps(1e-5)
    tensors, block = Tensors(writer, seed), "blk.0"
    tensors.normal("token_embd.weight", (N_VOCAB, N_EMBD), 1.0)
    tensors.normal("position_embd.weight", (n_positions, N_EMBD), 0.5)
    tensors.normal("output.weight", (N_VOCAB, N_EMBD), 0.4, zero_rows=control_tokens())
    for name in ("output_norm", f"{block}.attn_norm", f"{block}.ffn_norm"):
        add_layer_norm(tensors, name)
    shapes = {"attn_qkv": (3 * N_EMBD, N_EMBD), "attn_output": (N_EMBD, N_EMBD)}
    shapes |= {"ffn_up": (N_FF, N_EMBD), "ffn_down": (N_EMBD, N_FF)}
    for name, shape in shapes.items():
        tensors.normal(f"{block}.{name}.weight", shape)
        tensors.normal(f"{block}.{name}.bias", shape[:1], 0.1)
    return finish(writer, path)


def _add_sentencepiece(writer: gguf.GGUFWriter) -> None:
    """Add a vocabulary of bytes, letters and a few words."""
    kinds = gguf.TokenType
    words = [
        "\u2581",
        *(chr(c) for c in range(33, 127)),
        "ll",
        "or",
        "ld",
        "He",
        "wor",
        "world",
        "\u2581wor",
        "\u2581world",
    ]
    tokens = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
    tokens += [(word, kinds.NORMAL) for word in words]
    tokens += [(f"<unused{i}>", kinds.UNUSED) for i in range(N_VOCAB - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([float(len(text)) if kind == kinds.NORMAL else 0.0 for text, kind in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)
