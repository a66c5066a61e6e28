"""Tiny models with random weights, one of every kind of memory that llama.cpp has.

What they say is noise, but it depends on all that they were told, from the first token to the last one, and on their
order: a memory that lost or mixed up anything shows in the logits. Their tokenizer and chat template are those of the
embedded model.

Where there is attention, flash attention rounds differently for one token and for many, by up to 0.1 here. Whoever
compares the greedy tokens of different batches disables it: what is left is below 0.01.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np

from cyllama.models import TINY_CHAT

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
N_VOCAB = 1280

_N_EMBD, _N_HEAD, _N_FF = 64, 4, 96
_D_CONV, _D_INNER, _D_STATE, _DT_RANK, _N_GROUP = 4, 2 * _N_EMBD, 16, 4, 1
_SHORTCONV = 4


class _Tensors:
    """The tensors of a model, made in order from one source of randomness."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int, sliding_window: int | None = None) -> None:
        self.writer = writer
        self.sliding_window = sliding_window
        self._rng = np.random.default_rng(seed)

    def add(self, name: str, values: np.ndarray) -> None:
        self.writer.add_tensor(name, values.astype(np.float32))

    def normal(
        self, name: str, shape: tuple[int, ...], std: float | None = None, zero_rows: Sequence[int] = ()
    ) -> None:
        """Add values that keep the size of what they are multiplied with, unless ``std`` says otherwise."""
        values = self._rng.standard_normal(shape) * (shape[-1] ** -0.5 if std is None else std)
        values[list(zero_rows)] = 0
        self.add(name, values)

    def uniform(self, name: str, shape: tuple[int, ...], low: float, high: float) -> None:
        self.add(name, self._rng.uniform(low, high, shape))

    def ones(self, name: str, *shape: int) -> None:
        self.add(name, np.ones(shape))


def _attention(tensors: _Tensors, block: str, *, n_head_kv: int = _N_HEAD) -> None:
    """Add an attention that looks at few tokens: an average over many would be nearly the same for every history."""
    width = n_head_kv * _N_EMBD // _N_HEAD
    tensors.normal(f"{block}.attn_q.weight", (_N_EMBD, _N_EMBD), 1.5 * _N_EMBD**-0.5)
    tensors.normal(f"{block}.attn_k.weight", (width, _N_EMBD), 1.5 * _N_EMBD**-0.5)
    tensors.normal(f"{block}.attn_v.weight", (width, _N_EMBD), 2 * _N_EMBD**-0.5)
    tensors.normal(f"{block}.attn_output.weight", (_N_EMBD, _N_EMBD))


def _feed_forward(tensors: _Tensors, block: str) -> None:
    tensors.ones(f"{block}.ffn_norm.weight", _N_EMBD)
    tensors.normal(f"{block}.ffn_gate.weight", (_N_FF, _N_EMBD))
    tensors.normal(f"{block}.ffn_up.weight", (_N_FF, _N_EMBD))
    tensors.normal(f"{block}.ffn_down.weight", (_N_EMBD, _N_FF))


# With every token, the state h of a Mamba becomes exp(dt * a) * h + dt * b * x. With dt near softplus(-3) = 0.05 and a
# between -0.3 and -0.01, half of it is left after 50 to 1400 tokens. d, which lets x pass by the state, is small.


def _mamba(tensors: _Tensors, block: str, *, norms: bool = False) -> None:
    tensors.normal(f"{block}.ssm_in.weight", (2 * _D_INNER, _N_EMBD), 2 * _N_EMBD**-0.5)
    tensors.normal(f"{block}.ssm_conv1d.weight", (_D_INNER, _D_CONV))
    tensors.normal(f"{block}.ssm_conv1d.bias", (_D_INNER,), 0.1)
    tensors.normal(f"{block}.ssm_x.weight", (_DT_RANK + 2 * _D_STATE, _D_INNER), 2 * _D_INNER**-0.5)
    tensors.normal(f"{block}.ssm_dt.weight", (_D_INNER, _DT_RANK), 0.2)
    tensors.uniform(f"{block}.ssm_dt.bias", (_D_INNER,), -3.5, -2.5)
    tensors.uniform(f"{block}.ssm_a", (_D_INNER, _D_STATE), -0.3, -0.01)
    tensors.normal(f"{block}.ssm_d", (_D_INNER,), 0.1)
    tensors.normal(f"{block}.ssm_out.weight", (_N_EMBD, _D_INNER))
    if norms:
        tensors.ones(f"{block}.ssm_dt_norm.weight", _DT_RANK)
        tensors.ones(f"{block}.ssm_b_norm.weight", _D_STATE)
        tensors.ones(f"{block}.ssm_c_norm.weight", _D_STATE)


def _mamba2(tensors: _Tensors, block: str) -> None:
    conv_width = _D_INNER + 2 * _N_GROUP * _D_STATE
    tensors.normal(f"{block}.ssm_in.weight", (_D_INNER + conv_width + _DT_RANK, _N_EMBD))
    tensors.normal(f"{block}.ssm_conv1d.weight", (conv_width, _D_CONV), 1.0)
    tensors.normal(f"{block}.ssm_conv1d.bias", (conv_width,), 0.1)
    tensors.uniform(f"{block}.ssm_dt.bias", (_DT_RANK,), -3.5, -2.5)
    tensors.uniform(f"{block}.ssm_a", (_DT_RANK, 1), -0.3, -0.01)
    tensors.normal(f"{block}.ssm_d", (_DT_RANK, 1), 0.1)
    tensors.ones(f"{block}.ssm_norm.weight", _N_GROUP, _D_INNER // _N_GROUP)
    tensors.normal(f"{block}.ssm_out.weight", (_N_EMBD, _D_INNER))


def _write_ssm_sizes(writer: gguf.GGUFWriter) -> None:
    writer.add_ssm_conv_kernel(_D_CONV)
    writer.add_ssm_inner_size(_D_INNER)
    writer.add_ssm_state_size(_D_STATE)
    writer.add_ssm_time_step_rank(_DT_RANK)


def _write_llama(tensors: _Tensors) -> None:
    """Attention to everything."""
    tensors.writer.add_head_count_kv(_N_HEAD // 2)
    for i in range(2):
        tensors.ones(f"blk.{i}.attn_norm.weight", _N_EMBD)
        _attention(tensors, f"blk.{i}", n_head_kv=_N_HEAD // 2)
        _feed_forward(tensors, f"blk.{i}")


def _write_mamba(tensors: _Tensors) -> None:
    """A recurrent state."""
    tensors.writer.add_head_count_kv(0)
    _write_ssm_sizes(tensors.writer)
    for i in range(3):
        tensors.ones(f"blk.{i}.attn_norm.weight", _N_EMBD)
        _mamba(tensors, f"blk.{i}")


def _write_mamba2(tensors: _Tensors) -> None:
    """A recurrent state."""
    tensors.writer.add_head_count_kv(0)
    tensors.writer.add_ssm_group_count(_N_GROUP)
    _write_ssm_sizes(tensors.writer)
    for i in range(3):
        tensors.ones(f"blk.{i}.attn_norm.weight", _N_EMBD)
        _mamba2(tensors, f"blk.{i}")


def _write_jamba(tensors: _Tensors) -> None:
    """A recurrent state in two layers, attention in between."""
    n_head_kv = [0, _N_HEAD // 2, 0]
    tensors.writer.add_head_count_kv(n_head_kv)
    _write_ssm_sizes(tensors.writer)
    for i, heads in enumerate(n_head_kv):
        tensors.ones(f"blk.{i}.attn_norm.weight", _N_EMBD)
        if heads:
            _attention(tensors, f"blk.{i}", n_head_kv=heads)
        else:
            _mamba(tensors, f"blk.{i}", norms=True)
        _feed_forward(tensors, f"blk.{i}")


def _write_lfm2(tensors: _Tensors) -> None:
    """Short convolutions, whose state is the last few tokens, and attention; the only one here that takes n_rs_seq."""
    n_head_kv = [0, _N_HEAD // 2, 0, _N_HEAD // 2]
    tensors.writer.add_head_count_kv(n_head_kv)
    tensors.writer.add_shortconv_l_cache(_SHORTCONV)
    if tensors.sliding_window is not None:
        tensors.writer.add_sliding_window(tensors.sliding_window)
    for i, heads in enumerate(n_head_kv):
        tensors.ones(f"blk.{i}.attn_norm.weight", _N_EMBD)
        if heads:
            _attention(tensors, f"blk.{i}", n_head_kv=heads)
            tensors.ones(f"blk.{i}.attn_q_norm.weight", _N_EMBD // _N_HEAD)
            tensors.ones(f"blk.{i}.attn_k_norm.weight", _N_EMBD // _N_HEAD)
        else:
            tensors.normal(f"blk.{i}.shortconv.conv.weight", (_N_EMBD, _SHORTCONV))
            tensors.normal(f"blk.{i}.shortconv.in_proj.weight", (3 * _N_EMBD, _N_EMBD))
            tensors.normal(f"blk.{i}.shortconv.out_proj.weight", (_N_EMBD, _N_EMBD))
        _feed_forward(tensors, f"blk.{i}")


def _write_gemma3(tensors: _Tensors) -> None:
    """Attention to the last tokens in every other layer, to everything in the others."""
    writer, head = tensors.writer, _N_EMBD // _N_HEAD
    writer.add_head_count_kv(_N_HEAD // 2)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_sliding_window(tensors.sliding_window or SLIDING_WINDOW)
    writer.add_sliding_window_pattern(2)
    for i in range(4):
        tensors.ones(f"blk.{i}.attn_norm.weight", _N_EMBD)
        _attention(tensors, f"blk.{i}", n_head_kv=_N_HEAD // 2)
        tensors.add(f"blk.{i}.attn_q_norm.weight", np.full(head, 1.2))
        tensors.add(f"blk.{i}.attn_k_norm.weight", np.full(head, 1.2))
        tensors.add(f"blk.{i}.post_attention_norm.weight", np.full(_N_EMBD, 0.5))
        _feed_forward(tensors, f"blk.{i}")
        tensors.add(f"blk.{i}.post_ffw_norm.weight", np.full(_N_EMBD, 0.5))


class _Kind(NamedTuple):
    """How to write an architecture."""

    write: Callable[[_Tensors], None]
    n_layer: int
    output_norm: str = "output_norm"
    embedding_scale: float = 1.0  # by which it multiplies embeddings


_KINDS = {
    "llama": _Kind(_write_llama, 2),
    "gemma3": _Kind(_write_gemma3, 4, embedding_scale=_N_EMBD**0.5),
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
    recommended: Mapping[str, str | int | float] | None = None,
    sliding_window: int | None = None,
) -> Path:
    """Write a model of 1 to 2 MB.

    Args:
        path: The file to write.
        architecture: One of ``ARCHITECTURES``.
        seed: Of the weights.
        sentencepiece: Give it a vocabulary that puts a space before every text, as Llama 2 has it.
        chat_template: Jinja source of its template; by default that of the embedded model.
        endless: Let it never find a control token the most likely one, so that it does not come to an end by itself.
        recommended: The sampling that the file recommends, ``general.sampling.*``.
        sliding_window: Tokens that windowed layers attend to: by default ``SLIDING_WINDOW`` where an architecture
            always has such layers, and everything where it need not.

    Returns:
        The path.
    """
    kind = _KINDS[architecture]
    writer = gguf.GGUFWriter(path, architecture)
    if sentencepiece:
        _add_sentencepiece(writer)
    else:
        _copy_tokenizer(writer, {} if chat_template is None else {"tokenizer.chat_template": chat_template})
    writer.add_name(f"random-{architecture}")
    for name, value in (recommended or {}).items():
        add = {str: writer.add_string, int: writer.add_int32, float: writer.add_float32}[type(value)]
        add(f"general.sampling.{name}", value)
    writer.add_vocab_size(N_VOCAB)
    writer.add_context_length(N_CTX_TRAIN)
    writer.add_embedding_length(_N_EMBD)
    writer.add_block_count(kind.n_layer)
    writer.add_feed_forward_length(0 if architecture in RECURRENT else _N_FF)
    writer.add_head_count(0 if architecture in RECURRENT else _N_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)

    tensors = _Tensors(writer, seed, sliding_window)
    tensors.normal("token_embd.weight", (N_VOCAB, _N_EMBD), 0.5 / kind.embedding_scale)
    tensors.ones(f"{kind.output_norm}.weight", _N_EMBD)
    tensors.normal("output.weight", (N_VOCAB, _N_EMBD), 0.4, zero_rows=_control_tokens() if endless else ())
    kind.write(tensors)
    return _finish(writer, path)


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


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
    return _finish(writer, path)


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
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind = field.types[0]
            item = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, sub_type=item)
    for name, values in weights.items():
        writer.add_tensor(name, values.astype(np.float32))
    return _finish(writer, path)


def write_random_gpt2(path: Path, n_positions: int, seed: int = 0) -> Path:
    """Write a model that generates, and has learned embeddings of so many positions."""
    writer = gguf.GGUFWriter(path, "gpt2")
    _copy_tokenizer(writer, {})
    writer.add_name("random-gpt2")
    writer.add_context_length(n_positions)
    writer.add_embedding_length(_N_EMBD)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_N_FF)
    writer.add_head_count(_N_HEAD)
    writer.add_layer_norm_eps(1e-5)
    tensors, block = _Tensors(writer, seed), "blk.0"
    tensors.normal("token_embd.weight", (N_VOCAB, _N_EMBD), 1.0)
    tensors.normal("position_embd.weight", (n_positions, _N_EMBD), 0.5)
    tensors.normal("output.weight", (N_VOCAB, _N_EMBD), 0.4, zero_rows=_control_tokens())
    for name in ("output_norm", f"{block}.attn_norm", f"{block}.ffn_norm"):
        _layer_norm(tensors, name)
    shapes = {"attn_qkv": (3 * _N_EMBD, _N_EMBD), "attn_output": (_N_EMBD, _N_EMBD)}
    shapes |= {"ffn_up": (_N_FF, _N_EMBD), "ffn_down": (_N_EMBD, _N_FF)}
    for name, shape in shapes.items():
        tensors.normal(f"{block}.{name}.weight", shape)
        tensors.normal(f"{block}.{name}.bias", shape[:1], 0.1)
    return _finish(writer, path)


BERT_N_CTX = 128  # positions that a random BERT has
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_MARKS = ".,:;!?'-()"
_WORDS = ("the", "fox", "an", "animal", "sleeps", "rests", "hello", "world", "what", "do", "foxes", "eat", "mice")


def write_random_bert(
    path: Path,
    *,
    pooling: gguf.PoolingType | int | None = gguf.PoolingType.MEAN,
    causal: bool | None = False,
    seed: int = 0,
    nan: bool = False,
) -> Path:
    """Write an embedding model of 1 MB with a WordPiece vocabulary, or a rank model.

    Args:
        path: The file to write.
        pooling: What it says about pooling; with ``RANK``, it gets a head that makes one number.
        causal: What it says about attention; ``None`` for nothing, as if it generated text.
        seed: Of the weights.
        nan: Damage its weights.

    Returns:
        The path.
    """
    writer = gguf.GGUFWriter(path, "bert")
    n_vocab = _add_wordpiece(writer)
    writer.add_name("random-bert")
    writer.add_context_length(BERT_N_CTX)
    writer.add_embedding_length(_N_EMBD)
    writer.add_block_count(2)
    writer.add_feed_forward_length(_N_FF)
    writer.add_head_count(_N_HEAD)
    writer.add_layer_norm_eps(1e-6)
    writer.add_token_type_count(2)
    if causal is not None:
        writer.add_causal_attention(causal)
    if pooling is not None:
        writer.add_uint32("bert.pooling_type", int(pooling))

    tensors = _Tensors(writer, seed)
    tensors.normal("token_embd.weight", (n_vocab, _N_EMBD), 1.0)
    tensors.normal("position_embd.weight", (BERT_N_CTX, _N_EMBD), 0.5)
    tensors.normal("token_types.weight", (2, _N_EMBD), 0.1)
    _layer_norm(tensors, "token_embd_norm")
    for i in range(2):
        block = f"blk.{i}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors.normal(f"{block}.{part}.weight", (_N_EMBD, _N_EMBD), 1.5 * _N_EMBD**-0.5)
            tensors.normal(f"{block}.{part}.bias", (_N_EMBD,), 0.1)
        _layer_norm(tensors, f"{block}.attn_output_norm")
        tensors.normal(f"{block}.ffn_up.weight", (_N_FF, _N_EMBD))
        tensors.normal(f"{block}.ffn_up.bias", (_N_FF,), 0.1)
        tensors.normal(f"{block}.ffn_down.weight", (_N_EMBD, _N_FF))
        tensors.normal(f"{block}.ffn_down.bias", (_N_EMBD,), 0.1)
        _layer_norm(tensors, f"{block}.layer_output_norm", np.nan if nan and i else 1.0)
    if pooling == gguf.PoolingType.RANK:
        tensors.normal("cls.weight", (_N_EMBD, _N_EMBD))
        tensors.normal("cls.bias", (_N_EMBD,), 0.1)
        tensors.normal("cls.output.weight", (1, _N_EMBD))
        tensors.normal("cls.output.bias", (1,), 0.1)
    return _finish(writer, path)


def write_random_t5_encoder(path: Path, seed: int = 0) -> Path:
    """Write the encoder of a T5, which is evaluated with ``llama_encode`` and says nothing about pooling."""
    writer = gguf.GGUFWriter(path, "t5encoder")
    _copy_tokenizer(writer, {})
    writer.add_name("random-t5encoder")
    writer.add_context_length(N_CTX_TRAIN)
    writer.add_embedding_length(_N_EMBD)
    writer.add_feed_forward_length(_N_FF)
    writer.add_block_count(1)
    writer.add_head_count(_N_HEAD)
    writer.add_key_length(_N_EMBD // _N_HEAD)
    writer.add_value_length(_N_EMBD // _N_HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_relative_attn_buckets_count(32)
    tensors, block = _Tensors(writer, seed), "enc.blk.0"
    tensors.normal("token_embd.weight", (N_VOCAB, _N_EMBD), 1.0)
    tensors.ones("enc.output_norm.weight", _N_EMBD)
    tensors.normal(f"{block}.attn_rel_b.weight", (32, _N_HEAD))
    tensors.ones(f"{block}.attn_norm.weight", _N_EMBD)
    for part in "qkvo":
        tensors.normal(f"{block}.attn_{part}.weight", (_N_EMBD, _N_EMBD), 0.5 * _N_EMBD**-0.5)
    _feed_forward(tensors, block)
    return _finish(writer, path)


def _layer_norm(tensors: _Tensors, name: str, weight: float = 1.0) -> None:
    tensors.add(f"{name}.weight", np.full(_N_EMBD, weight))
    tensors.normal(f"{name}.bias", (_N_EMBD,), 0.1)


def _add_wordpiece(writer: gguf.GGUFWriter) -> int:
    """Add a vocabulary of a few words, and of letters to begin and to continue others with; return its size."""
    kinds = gguf.TokenType
    tokens = [(f"[{name}]", kinds.CONTROL) for name in ("PAD", "CLS", "SEP", "MASK")] + [("[UNK]", kinds.UNKNOWN)]
    tokens += [(f"\u2581{text}", kinds.NORMAL) for text in (*_LETTERS, *_MARKS, *_WORDS)]
    tokens += [(text, kinds.NORMAL) for text in (*_LETTERS, "es", "ing")]
    writer.add_tokenizer_model("bert")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    ids = {text: i for i, (text, _) in enumerate(tokens)}
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_eos_token_id(ids["[SEP]"])
    writer.add_mask_token_id(ids["[MASK]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)
    return len(tokens)


def _copy_tokenizer(writer: gguf.GGUFWriter, replaced: Mapping[str, str]) -> None:
    for key, field in gguf.GGUFReader(TINY_CHAT).fields.items():
        if key.startswith("tokenizer."):
            kind = field.types[0]
            item = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, replaced.get(key, field.contents()), kind, sub_type=item)


def _control_tokens() -> list[int]:
    kinds = gguf.GGUFReader(TINY_CHAT).fields["tokenizer.ggml.token_type"].contents()
    return [token for token, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL]


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
