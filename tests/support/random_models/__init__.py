"""Tiny models with random weights, one of every kind of memory that llama.cpp has.

What they say is noise, but it depends on all that they were told, from the first token to the last one, and on their
order: a memory that lost or mixed up anything shows in the logits. Their tokenizer and chat template are those of the
embedded model.

Where there is attention, flash attention rounds differently for one token and for many, by up to 0.1 here. Tests that
compare the greedy tokens of different batches disable it: what is left is below 0.01.
"""

from __future__ import annotations

from .adapters import write_adapter, write_merged_model, write_random_adapter
from .architectures import (
    ARCHITECTURES,
    HYBRID,
    N_CTX_TRAIN,
    REAL_SLIDING_WINDOW,
    REASONING,
    RECURRENT,
    SLIDING,
    SLIDING_WINDOW,
    write_random_gpt2,
    write_random_model,
)
from .embedding import BERT_N_CTX, write_random_bert, write_random_t5, write_random_t5_encoder
from .files import N_VOCAB, finish
from .one_layer import write_one_layer

__all__ = [
    "ARCHITECTURES",
    "BERT_N_CTX",
    "HYBRID",
    "N_CTX_TRAIN",
    "N_VOCAB",
    "REAL_SLIDING_WINDOW",
    "REASONING",
    "RECURRENT",
    "SLIDING",
    "SLIDING_WINDOW",
    "finish",
    "write_adapter",
    "write_merged_model",
    "write_one_layer",
    "write_random_adapter",
    "write_random_bert",
    "write_random_gpt2",
    "write_random_model",
    "write_random_t5",
    "write_random_t5_encoder",
]
