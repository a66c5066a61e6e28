"""Models whose logits are a product of one matrix, and these logits for any number of tokens in a batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import gguf
import numpy as np

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaModel

from .contexts import make_params
from .random_models import finish

#: How many tokens have an embedding: the tokens of a batch are these, in turn.
N_EMBEDDED = 16


def write_model(
    path: Path, matrix: np.ndarray, kind: gguf.GGMLQuantizationType, width: int, embedded: np.ndarray
) -> Path:
    """Write a model whose logits are the normalized embedding of the token, times a matrix."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(len(matrix))
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(1)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_key_length(2)
    writer.add_value_length(2)
    writer.add_rope_dimension_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    embeddings = np.zeros((len(matrix), width), np.float32)
    embeddings[:N_EMBEDDED] = embedded
    writer.add_tensor("token_embd.weight", embeddings)
    writer.add_tensor("output.weight", matrix, raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for norm in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{norm}.weight", np.ones(width, np.float32))
    for name, n_out, n_in in (
        ("attn_q", 2, width),
        ("attn_k", 2, width),
        ("attn_v", 2, width),
        ("attn_output", width, 2),
        ("ffn_gate", 1, width),
        ("ffn_up", 1, width),
        ("ffn_down", width, 1),
    ):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((n_out, n_in), np.float32))
    return finish(writer, path)


def logits(path: Path, n_tokens: Collection[int], n_threads: int) -> Iterator[np.ndarray]:
    """Yield, for each number of tokens in a batch, the logits after every token."""
    most = max(n_tokens)
    params = make_params(n_outputs_max=most, n_threads=n_threads, n_threads_batch=n_threads)
    with LlamaModel(path) as model, LlamaContext(model, params) as context:
        for n in n_tokens:
            context.kv_cache_clear()
            batch = LlamaBatch(n)
            for position in range(n):
                batch.add(position % N_EMBEDDED, position, logits=True)
            assert context.decode(batch) == 0
            yield np.array([context.get_logits_ith(i) for i in range(n)])
