"""One loaded model in this process: its file, its vocabulary, its templates, its adapters, and what it can do."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .callers import levels_to_the_program
from .config import GenerationConfig, ModelConfig
from .draft_model import check_draft_model, load_draft_model
from .engine import Adapter, AdapterSet, DraftModel, memory_of
from .errors import ConfigError, ForkedError, UnsupportedModelError
from .loading import load_model
from .lora import LoadedAdapters
from .models.identity import model_identity
from .recommended import Defaults, RecommendedSampling
from .tokenizer import Tokenizer
from .vision import find_projector, load_vision

if TYPE_CHECKING:
    from .chat import ChatTemplates


class LoadedModel:
    """What of a model the arguments of a call are checked by, and made into tokens with.

    All methods may be called from any thread.

    Args:
        path: The model's file.
        config: How to load it.
        given: Options of generations that calls do not have to repeat.
        progress: Called while the model is loaded, with 0.0 to 1.0; returning ``False`` stops it.
        draft: What drafts tokens for it; by default the draft model of ``config``.

    Attributes:
        config: How the model was loaded.
        model: The model.
        vocab: Its vocabulary.
        path: The absolute path of its file: the same file when the process changes its folder.
        name: The model's name: what its file says, else the file's own.
        identity: What tells the model from others.
        draft: The model that drafts tokens for it, if there is one.
        drafts: Whether that can draft: both memories can drop what was drafted wrongly.
        can_speculate: Whether its memory can drop what was drafted wrongly.
        ends: Tokens that end a generation.
        defaults: The options that a call does not give.
        vision: What it sees images with, if a projector was loaded.
        tokenizer: Text to token ids, and back.
        lock: Held around changes of the adapters, the engine and the conversations. It is re-entrant, since a signal
            handler may stop the engine.
    """

    def __init__(
        self,
        path: Path,
        config: ModelConfig,
        given: GenerationConfig,
        progress: Callable[[float], bool | None] | None = None,
        draft: DraftModel | None = None,
    ) -> None:
        self.config = config
        self.draft = draft or load_draft_model(config, progress)  # first: what it takes of a GPU is not free then
        self.check_speculation(given)
        projector = find_projector(config, path)  # before the model takes all of a GPU
        self.model = load_model(os.fspath(path), config, progress, given.n_ctx, projector)
        self.vocab = self.model.vocab
        self.can_speculate = memory_of(self.model, swa_full=config.swa_full).drops_drafts
        self.ends = frozenset(self.vocab.eog_tokens())
        self.path = path.absolute()
        self.name = self.model.metadata.get("general.name") or self.path.stem
        self.drafts = self.draft is not None and self.draft.can_draft and self.can_speculate
        if self.draft is not None:
            check_draft_model(self.draft, self.vocab, self.name)
        if self.drafts and "speculation" not in given.model_fields_set:
            given = given.merge(speculation="draft")
        self.identity = model_identity(self.path)
        self.defaults = Defaults(given, RecommendedSampling(self.model.metadata, config.kv_overrides))
        self.vision = load_vision(self.model, config, projector)
        self.tokenizer = Tokenizer(self.model, self.vision)
        self.lock = threading.RLock()
        self._can_generate = self.model.has_decoder and not self.model.has_encoder and self.model.is_causal
        self._adapters = LoadedAdapters(self.model)
        self._process = os.getpid()

    @cached_property
    def chat(self) -> ChatTemplates:
        """The chat templates in use."""
        from .chat import ChatTemplates  # here, since a completion does without

        return ChatTemplates(self.model, self.tokenizer.control_text)

    # -------------------- the process

    @property
    def in_own_process(self) -> bool:
        """Whether this is the process that loaded the model, and not a fork of it."""
        return os.getpid() == self._process

    def check_process(self) -> None:
        """Raise :class:`ForkedError` in a fork of the process that loaded the model: the threads are not there."""
        if not self.in_own_process:
            raise ForkedError(
                "this LLM was loaded before os.fork(), and its threads exist in the parent process only: load it in "
                "the child, or start processes with multiprocessing's 'spawn'"
            )

    def check_generates(self) -> None:
        """Raise :class:`UnsupportedModelError` for a model that cannot generate text."""
        if not self._can_generate:
            raise UnsupportedModelError(
                f"{self.name} cannot generate text: it has an encoder, or its tokens attend to later ones"
            )

    def check_speculation(self, config: GenerationConfig) -> None:
        """Raise :class:`ConfigError` where drafts of a model are asked for, and no draft model is loaded."""
        if config.speculation == "draft" and self.draft is None:
            raise ConfigError(
                "speculation='draft' needs a model that drafts tokens: load the LLM with draft_model, or use 'lookup'"
            )

    def warn_unless_it_speculates(self, config: GenerationConfig) -> None:
        """Say that the option ``speculation`` has no effect, where it is asked for and has none."""
        if config.speculation == "off" or self.drafts or (config.speculation == "lookup" and self.can_speculate):
            return
        name = self.draft.name if self.can_speculate and self.draft is not None else self.name
        warnings.warn(
            f"speculation={config.speculation!r} has no effect: {name} has recurrent states, which cannot drop "
            "tokens that were drafted wrongly; the text is the same without it",
            stacklevel=levels_to_the_program() + 1,
        )

    def renew_lock(self) -> None:
        """Replace the lock, in a forked child: a thread of the parent that held it does not exist here."""
        self.lock = threading.RLock()

    # -------------------- adapters

    @property
    def adapter_names(self) -> list[str]:
        """Names of the LoRA adapters that are loaded."""
        return list(self._adapters)

    def adapter(self, name: str) -> Adapter:
        """Return the adapter of that name."""
        return self._adapters[name]

    def load_adapter(self, name: str, path: str | os.PathLike[str]) -> None:
        """Load a LoRA adapter. It raises what :meth:`LoadedAdapters.load` does."""
        self.check_process()
        self.check_generates()
        adapter = self._adapters.load(name, path)
        with self.lock:
            self._adapters.add(adapter)

    def unload_adapter(self, name: str) -> None:
        """Make the name of a LoRA adapter free again.

        Raises:
            ConfigError: There is no adapter of that name.
        """
        self.check_process()
        with self.lock:
            self._adapters.remove(name)

    def adapter_set(self, config: GenerationConfig) -> AdapterSet:
        """Return the adapters that ``config.lora`` names, which the set keeps loaded.

        Raises:
            ConfigError: There is no adapter of one of the names.
        """
        with self.lock:
            return self._adapters.set_of(config)
