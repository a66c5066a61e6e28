"""The model that drafts tokens for another one: where it comes from, and whether it can."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .callers import levels_to_the_program
from .config import ModelConfig
from .engine import DraftModel
from .errors import ConfigError
from .llama.llama_cpp import LlamaVocab
from .loading import load_model
from .models import resolve_model_path

#: Options that a draft model has from the model that it drafts for.
SHARED = (
    *("n_gpu_layers", "main_gpu", "split_mode", "devices", "load_mode", "check_tensors", "n_threads"),
    *("n_threads_batch", "threadpool_poll", "n_ubatch", "flash_attn", "offload_kqv", "op_offload"),
)
FIRST_COMPARED, MOST_MORE_TOKENS = 5, 128  # as in llama.cpp's common_speculative_are_compatible


def draft_config(config: ModelConfig) -> ModelConfig:
    """Return how the draft model of a model is loaded, given how that is.

    >>> draft_config(ModelConfig(n_threads=2, type_k="q8_0"))
    ModelConfig(n_threads=2)
    """
    return ModelConfig(**{name: getattr(config, name) for name in SHARED if name in config.model_fields_set})


def load_draft_model(config: ModelConfig, progress: Callable[[float], bool | None] | None) -> DraftModel | None:
    """Load the draft model that a config names.

    Args:
        config: How the model is loaded that it drafts for.
        progress: Called with 0.0 while it is loaded; returning ``False`` stops it.

    Raises:
        CyllamaError: It cannot be loaded; ``LLM`` documents why.
    """
    if config.draft_model is None:
        return None
    path = resolve_model_path(config.draft_model)
    own = draft_config(config)
    model = load_model(os.fspath(path), own, None if progress is None else lambda _: progress(0.0))
    return DraftModel(model, own, model.metadata.get("general.name") or path.stem)


def check_draft_model(draft: DraftModel, vocab: LlamaVocab, name: str) -> None:
    """Check that a model can draft for another one, whose vocabulary and name are given.

    Raises:
        ConfigError: It cannot generate, or has another vocabulary.
    """
    model = draft.model
    if not model.has_decoder or model.has_encoder or not model.is_causal:
        raise ConfigError(
            f"draft_model {draft.name!r} cannot generate text: it has an encoder, or its tokens attend to later ones"
        )
    difference = next(_differences(vocab, model.vocab), None)
    if difference is not None:
        what, of_model, of_draft = difference
        raise ConfigError(
            f"draft_model {draft.name!r} has another vocabulary than {name!r}: {what} is {of_draft!r:.80} instead of "
            f"{of_model!r:.80}; choose a model of the same family, or leave draft_model out"
        )
    if not draft.can_draft:
        warnings.warn(
            f"draft_model has no effect: {draft.name} has recurrent states, which cannot drop tokens that were drafted "
            "wrongly; the text is the same without it",
            stacklevel=levels_to_the_program() + 1,
        )


def _differences(vocab: LlamaVocab, of_draft: LlamaVocab) -> Iterator[tuple[str, Any, Any]]:
    """Yield what two vocabularies differ in, and both values, as far as drafts depend on it."""
    special = ["the type", "add_bos", "add_eos"]
    for name, one, other in zip(special, _special(vocab), _special(of_draft), strict=True):
        if one != other:
            yield name, one, other
    if vocab.add_bos and vocab.bos != of_draft.bos:
        yield "the token BOS", vocab.bos, of_draft.bos
    if vocab.add_eos and vocab.eos != of_draft.eos:
        yield "the token EOS", vocab.eos, of_draft.eos
    if abs(vocab.n_tokens - of_draft.n_tokens) > MOST_MORE_TOKENS:
        yield "the number of tokens", vocab.n_tokens, of_draft.n_tokens
    for token in range(FIRST_COMPARED, min(vocab.n_tokens, of_draft.n_tokens)):
        one, other = vocab.get_text(token), of_draft.get_text(token)
        if one != other:
            yield f"token {token}", one, other


def _special(vocab: LlamaVocab) -> tuple[str, bool, bool]:
    return vocab.type.name, vocab.add_bos, vocab.add_eos
