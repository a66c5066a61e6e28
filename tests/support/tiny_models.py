"""Models of one layer with random weights, for tests of the binding."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from cyllama.models import TINY_CHAT


class Writer:
    """Writes tiny models with random weights, and the vocabulary of the embedded one unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rng = np.random.default_rng(0)

    def copy_tokenizer(self, writer: gguf.GGUFWriter) -> None:
        for key, field in gguf.GGUFReader(TINY_CHAT).fields.items():
            if key.startswith("tokenizer."):
                kind = field.types[0]
                item = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(key, field.contents(), kind, sub_type=item)

    def finish(
        self, writer: gguf.GGUFWriter, path: Path, shapes: dict[str, tuple[int, ...]], *, quantized: bool = False
    ) -> Path:
        for name, shape in shapes.items():
            if name.endswith("norm.weight"):
                tensor = np.ones(shape, np.float32)
            else:
                scale = 0.3 if ".attn_" in name else 0.1  # an average over all tokens would be the same for most
                tensor = self._rng.standard_normal(shape).astype(np.float32) * scale
            if quantized and len(shape) == 2:
                q4_0 = gguf.GGMLQuantizationType.Q4_0
                writer.add_tensor(name, gguf.quants.quantize(tensor, q4_0), raw_dtype=q4_0)
            else:
                writer.add_tensor(name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def llama(
        self,
        name: str = "llama.gguf",
        *,
        nan: bool = False,
        n_vocab: int | None = None,
        n_head: int = 4,
        n_head_kv: int = 4,
        head_width: int = 8,
        n_ff: int = 64,
        quantized: bool = False,
        rope_scaling: str | None = None,
    ) -> Path:
        """Write a llama model; ``nan`` damages its last norm, ``n_vocab`` leaves the vocabulary out.

        With ``quantized``, its matrices are of the type Q4_0.
        """
        path, width, ff = self._folder / name, n_head * head_width, n_ff
        writer = gguf.GGUFWriter(path, "llama")
        if n_vocab is None:
            self.copy_tokenizer(writer)
        else:
            writer.add_tokenizer_model("no_vocab")
            writer.add_vocab_size(n_vocab)
        rows = n_vocab or 1280
        writer.add_context_length(512)
        writer.add_embedding_length(width)
        writer.add_block_count(1)
        writer.add_feed_forward_length(ff)
        writer.add_head_count(n_head)
        writer.add_head_count_kv(n_head_kv)
        writer.add_layer_norm_rms_eps(1e-5)
        if rope_scaling is not None:
            writer.add_string("llama.rope.scaling.type", rope_scaling)
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (rows, width),
            "output.weight": (rows, width),
            "blk.0.attn_norm.weight": (width,),
            "blk.0.ffn_norm.weight": (width,),
            "blk.0.ffn_gate.weight": (ff, width),
            "blk.0.ffn_up.weight": (ff, width),
            "blk.0.ffn_down.weight": (width, ff),
        }
        shapes |= {f"blk.0.attn_{part}.weight": (width, width) for part in ("q", "output")}
        shapes |= {f"blk.0.attn_{part}.weight": (n_head_kv * head_width, width) for part in ("k", "v")}
        writer.add_tensor("output_norm.weight", np.full(width, np.nan if nan else 1.0, np.float32))
        return self.finish(writer, path, shapes, quantized=quantized)

    def t5(self) -> Path:
        """Write an encoder-decoder model."""
        path, width, ff = self._folder / "t5.gguf", 32, 64
        writer = gguf.GGUFWriter(path, "t5")
        self.copy_tokenizer(writer)
        writer.add_context_length(512)
        writer.add_embedding_length(width)
        writer.add_feed_forward_length(ff)
        writer.add_block_count(1)
        writer.add_head_count(4)
        writer.add_key_length(8)
        writer.add_value_length(8)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_relative_attn_buckets_count(32)
        writer.add_decoder_start_token_id(0)
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (1280, width),
            "output.weight": (1280, width),
            "dec.blk.0.cross_attn_norm.weight": (width,),
        }
        for side in ("enc", "dec"):
            shapes |= {f"{side}.output_norm.weight": (width,), f"{side}.blk.0.attn_rel_b.weight": (32, 4)}
            shapes |= {f"{side}.blk.0.{norm}_norm.weight": (width,) for norm in ("attn", "ffn")}
            shapes |= {f"{side}.blk.0.attn_{part}.weight": (width, width) for part in "qkvo"}
            shapes |= {f"{side}.blk.0.ffn_{part}.weight": (ff, width) for part in ("gate", "up")}
            shapes[f"{side}.blk.0.ffn_down.weight"] = (width, ff)
        shapes |= {f"dec.blk.0.cross_attn_{part}.weight": (width, width) for part in "qkvo"}
        return self.finish(writer, path, shapes)

    def bert(self) -> Path:
        """Write an embedding model, which has no memory."""
        path, width, ff = self._folder / "bert.gguf", 32, 64
        writer = gguf.GGUFWriter(path, "bert")
        self.copy_tokenizer(writer)
        writer.add_context_length(512)
        writer.add_embedding_length(width)
        writer.add_feed_forward_length(ff)
        writer.add_block_count(1)
        writer.add_head_count(4)
        writer.add_layer_norm_eps(1e-6)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        writer.add_token_type_count(2)
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (1280, width),
            "position_embd.weight": (512, width),
            "token_types.weight": (2, width),
            "token_embd_norm.weight": (width,),
            "token_embd_norm.bias": (width,),
            "blk.0.ffn_up.weight": (ff, width),
            "blk.0.ffn_up.bias": (ff,),
            "blk.0.ffn_down.weight": (width, ff),
            "blk.0.ffn_down.bias": (width,),
        }
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes |= {f"blk.0.{part}.weight": (width, width), f"blk.0.{part}.bias": (width,)}
        for part in ("attn_output_norm", "layer_output_norm"):
            shapes |= {f"blk.0.{part}.weight": (width,), f"blk.0.{part}.bias": (width,)}
        return self.finish(writer, path, shapes)

    def mamba(self) -> Path:
        """Write a recurrent model."""
        path, width, inner, state, rank = self._folder / "mamba.gguf", 32, 64, 16, 2
        writer = gguf.GGUFWriter(path, "mamba")
        self.copy_tokenizer(writer)
        writer.add_context_length(512)
        writer.add_embedding_length(width)
        writer.add_feed_forward_length(0)
        writer.add_head_count(0)
        writer.add_block_count(1)
        writer.add_ssm_conv_kernel(4)
        writer.add_ssm_inner_size(inner)
        writer.add_ssm_state_size(state)
        writer.add_ssm_time_step_rank(rank)
        writer.add_layer_norm_rms_eps(1e-6)
        return self.finish(
            writer,
            path,
            {
                "token_embd.weight": (1280, width),
                "output_norm.weight": (width,),
                "output.weight": (1280, width),
                "blk.0.attn_norm.weight": (width,),
                "blk.0.ssm_in.weight": (2 * inner, width),
                "blk.0.ssm_conv1d.weight": (inner, 4),
                "blk.0.ssm_conv1d.bias": (inner,),
                "blk.0.ssm_x.weight": (rank + 2 * state, inner),
                "blk.0.ssm_dt.weight": (inner, rank),
                "blk.0.ssm_dt.bias": (inner,),
                "blk.0.ssm_a": (inner, state),
                "blk.0.ssm_d": (inner,),
                "blk.0.ssm_out.weight": (width, inner),
            },
        )

    def bytes_vocab(self, pre: str) -> Path:
        """Write a vocabulary of the 256 bytes alone, with that pre-tokenizer."""
        path = self._folder / f"bytes-{pre}.gguf"
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        tokens = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list([*tokens, "<eos>"])
        writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL])
        writer.add_token_merges(["a a"])
        writer.add_eos_token_id(256)
        return self.finish(writer, path, {})
