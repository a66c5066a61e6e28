"""The binding alone: the embedded model, contexts and batches, tiny models made on the spot, processes to crash."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel
from cyllama.models import TINY_CHAT

PRELUDE = """
import gc, logging, os, sys, threading, time
from cyllama.llama.llama_cpp import *
from cyllama.models import TINY_CHAT

def params(**fields):
    result = LlamaContextParams()
    result.n_ctx, result.n_threads, result.n_threads_batch = 256, 1, 1
    for name, value in fields.items():
        setattr(result, name, value)
    return result

def load(**fields):
    result = LlamaModelParams()
    for name, value in fields.items():
        setattr(result, name, value)
    return LlamaModel(str(TINY_CHAT), result)

def batch_of(tokens=(1, 2, 3), pos=0, seq_id=0, logits_last=True):
    batch = LlamaBatch(max(len(tokens), 1))
    batch.add_sequence(list(tokens), pos, seq_id, logits_last)
    return batch

def raised(function, *args):
    try:
        function(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"
"""


def make_params(**fields: Any) -> LlamaContextParams:
    params = LlamaContextParams()
    params.n_ctx, params.n_threads, params.n_threads_batch = 256, 1, 1  # more threads would wait for other tests
    for name, value in fields.items():
        setattr(params, name, value)
    return params


@pytest.fixture
def tiny_chat() -> Path:
    return TINY_CHAT


@pytest.fixture(scope="session")
def model() -> Iterator[LlamaModel]:
    with LlamaModel(TINY_CHAT) as model:
        yield model


@pytest.fixture
def new_context(model: LlamaModel) -> Iterator[Callable[..., LlamaContext]]:
    """Create a context of the embedded model, or another one, with these parameters; it is closed after the test."""
    contexts: list[LlamaContext] = []

    def create(of: LlamaModel | None = None, **fields: Any) -> LlamaContext:
        contexts.append(LlamaContext(of or model, make_params(**fields)))
        return contexts[-1]

    yield create
    for context in contexts:
        context.close()


@pytest.fixture
def context(new_context: Callable[..., LlamaContext]) -> LlamaContext:
    return new_context()


@pytest.fixture
def batch_of() -> Callable[..., LlamaBatch]:
    """Create a batch that holds exactly these tokens of one sequence."""

    def create(
        tokens: Sequence[int] = (1, 2, 3), pos: int = 0, seq_id: int = 0, logits_last: bool = True
    ) -> LlamaBatch:
        batch = LlamaBatch(max(len(tokens), 1))
        batch.add_sequence(list(tokens), pos, seq_id, logits_last)
        return batch

    return create


@pytest.fixture
def story(model: LlamaModel) -> list[int]:
    """Some text as token ids."""
    return model.vocab.tokenize("Once upon a time there was a small fox who lived in the forest with its friends.")


@pytest.fixture
def in_process() -> Callable[..., str]:
    """Run code in a process of its own, which has to end well and silently, and return what it printed."""

    def run(code: str, *, stderr: str = "", exit_code: int = 0, backtrace: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", PRELUDE + code],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ} if backtrace else {**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        assert (done.returncode, done.stderr) == (exit_code, stderr), done.stdout + done.stderr
        return done.stdout

    return run


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


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


@pytest.fixture(scope="session")
def large_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaContext]:
    """A context of a random model of 20,000 tokens."""
    with LlamaModel(Writer(tmp_path_factory.mktemp("large")).llama(n_vocab=20_000)) as model:
        yield LlamaContext(model, make_params())
