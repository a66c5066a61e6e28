"""One loaded model at work: its engine, its embedder and its conversations."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from .config import GenerationConfig, ModelConfig
from .engine import (
    AdapterKey,
    Conversation,
    Conversations,
    DraftModel,
    Engine,
    History,
    PromptImage,
    Reply,
    Request,
    Stats,
    is_cell,
    observe,
    rekeyed,
)
from .engine.memory_needs import stats_of
from .errors import BusyError, PromptTypeError, SessionError, SessionFileError
from .llama.llama_cpp import LlamaPoolingType
from .loaded_model import LoadedModel

if TYPE_CHECKING:
    from .engine.embedding import Embedder, EmbeddingJob
    from .session_file import SavedSession

WorkerT = TypeVar("WorkerT", Engine, "Embedder")


class _Slot(Generic[WorkerT]):
    """A worker that is started on demand, after the one before it has ended. To be used with the lock held.

    Attributes:
        worker: The one that takes work, if there is one.
    """

    def __init__(self) -> None:
        self.worker: WorkerT | None = None
        self._stopped: WorkerT | None = None

    def started(self, start: Callable[[WorkerT | None], WorkerT]) -> WorkerT:
        """Return the worker. If there is none, ``start`` makes one that waits for the end of the one before it."""
        if self.worker is None:
            self.worker = start(self._stopped)
            self._stopped = None
        return self.worker

    def take_out(self) -> WorkerT | None:
        """Return the worker to stop: also one that another thread is stopping, so that both wait for its end."""
        worker = self.worker or self._stopped
        self.worker, self._stopped = None, worker
        return worker


class Runtime(LoadedModel):
    """One loaded model, and all that an :class:`LLM`, its sessions and its streams do with it.

    These hold the runtime, and nothing that the runtime holds refers to it or to them. So it is finalized, and its
    threads end, when the last of them is dropped. All methods may be called from any thread.

    Args:
        path: The model's file.
        config: How to load it.
        given: Options of generations that calls do not have to repeat.
        progress: Called while the model is loaded, with 0.0 to 1.0; returning ``False`` stops it.
        draft: What drafts tokens for it; by default the draft model of ``config``.

    Attributes:
        conversations: The conversations that are remembered. To be used with the lock held.
    """

    def __init__(
        self,
        path: Path,
        config: ModelConfig,
        given: GenerationConfig,
        progress: Callable[[float], bool | None] | None = None,
        draft: DraftModel | None = None,
    ) -> None:
        super().__init__(path, config, given, progress, draft)
        self.conversations = Conversations(config.max_sessions, config.session_images_mb * 2**20)
        self._stats = stats_of(self.model)
        self._engine = _Slot[Engine]()
        self._embedder: _Slot[Embedder] = _Slot()
        self._is_whole = True
        _alive.add(self)

    # -------------------- the engine

    @property
    def engine(self) -> Engine | None:
        """The engine, if it runs."""
        return self._engine.worker

    def running_engine(self) -> Engine:
        """Return the engine, started if it does not run. To be called with the lock held."""
        draft = self.draft if self.drafts else None
        encoder = None if self.vision is None else self.vision.encoder
        return self._engine.started(lambda before: Engine(self.model, self.config, self._stats, before, draft, encoder))

    def as_draft(self) -> DraftModel:
        """Return this model as one that drafts for another.

        Raises:
            ForkedError: The process was forked after the model was loaded.
        """
        self.check_process()
        return DraftModel(self.model, self.config, self.name)

    def stop(self) -> None:
        """End all generations and embeddings, release their contexts, and wait until that is done.

        Conversations keep their token ids. The next generation starts another engine.
        """
        if not self.in_own_process:
            return
        with self.lock:
            engine, embedder = self._engine.take_out(), self._embedder.take_out()
        if engine is not None:
            engine.stop()
        if embedder is not None:
            embedder.stop()

    def __del__(self) -> None:
        # Also runs after a failed __init__, on any thread and while the interpreter shuts down.
        try:
            if hasattr(self, "_is_whole"):
                self.stop()
        except Exception:  # there is no caller to tell
            return

    @property
    def stats(self) -> Stats:
        """What has been done so far, and what is going on; a snapshot."""
        engine = self.engine
        now = {} if engine is None else engine.occupancy
        sessions, alone = observe(self.conversations, {} if engine is None else engine.cell_shares)
        shared = max(0, now.get("kv_cells_used", 0) - alone)
        embeddings = 0 if self.vision is None else self.vision.encoder.cached_bytes
        image_bytes = self.conversations.image_bytes + embeddings
        places = {"resident": 0, "swapped": 0, "dropped": 0}
        for conversation in self.conversations:
            if conversation.tokens:
                places[conversation.place] += 1
        return self._stats.snapshot(sessions=sessions, kv_cells_shared=shared, image_bytes=image_bytes, **places, **now)

    @property
    def n_ctx(self) -> int:
        """Size of the context in tokens; 0 where there is none."""
        return self._stats.n_ctx

    # -------------------- generations

    def submit(
        self,
        requests: Sequence[Request],
        session: str | None = None,
        handle: object | None = None,
        *,
        limited: bool = True,
    ) -> None:
        """Hand generations over to the engine, all or none of them.

        Args:
            requests: One, or several with the same prompt.
            session: Name of the conversation that they belong to, created if it does not exist.
            handle: The session object that asks, if there is one: while it exists, the conversation is not forgotten
                to make room.
            limited: Whether they are refused where ``max_waiting`` generations wait already.

        Raises:
            BusyError: ``max_waiting`` generations wait already.
            PromptTypeError: The name is not a str.
            SessionError: There are ``max_sessions`` conversations, and all are in use.
        """
        with self.lock:
            if limited:
                self._check_waiting()
            self._submit(requests, None if session is None else self._held(session, handle))

    def _submit(self, requests: Sequence[Request], conversation: Conversation | None) -> None:
        """Hand generations over to the engine. To be called with the lock held."""
        try:
            for request in requests:
                request.conversation = conversation
                if conversation is not None:
                    conversation.requests.add(request)
            self.running_engine().submit(*requests)
        except BaseException:  # Ctrl-C
            for request in requests:
                self._withdraw(request)
            raise

    def _check_waiting(self) -> None:
        n_parallel, max_waiting = self.config.n_parallel, self.config.max_waiting
        n_unfinished = 0 if self.engine is None else self.engine.n_unfinished
        if max_waiting is not None and n_unfinished >= n_parallel + max_waiting:
            raise BusyError(
                f"unfinished generations: {n_unfinished}, and at most {n_parallel + max_waiting} are allowed, "
                f"n_parallel={n_parallel} that run and max_waiting={max_waiting} that wait: try again when one has "
                f"ended, or raise max_waiting or n_parallel in ModelConfig"
            )

    def _withdraw(self, request: Request) -> None:
        """End a request that the engine may or may not have seen. To be called with the lock held."""
        request.cancelled = True
        if self.engine is not None:
            self.engine.submit(request)  # which ends it
        elif request.conversation is not None:
            request.conversation.requests.discard(request)

    def cancel(self, request: Request) -> None:
        """End a generation within one step. It does not wait, and may be called by finalizers."""
        if not self.in_own_process:
            return  # a lock may have been held when it was forked, and no engine runs there anyway
        request.cancelled = True
        engine = self.engine
        if engine is not None:
            engine.cancel(request)

    def submit_embedding(self, job: EmbeddingJob, pooling: LlamaPoolingType) -> None:
        """Hand texts over to the embedder, started if it does not run."""
        from .engine.embedding import Embedder  # here, since generations do without

        with self.lock:
            embedder = self._embedder.started(
                lambda before: Embedder(self.model, self.config, pooling, self._stats, before)
            )
            embedder.submit(job)

    def unload_adapter(self, name: str) -> None:
        """Free a LoRA adapter, after the last of the generations that were asked for with it.

        Raises:
            ConfigError: There is no adapter of that name.
        """
        with self.lock:
            super().unload_adapter(name)
            if self.engine is not None:
                self.engine.free_unloaded_adapters()

    # -------------------- conversations

    @property
    def session_names(self) -> list[str]:
        """Names of the conversations that are remembered, oldest first."""
        with self.lock:
            self._forget_failed()
            return self.conversations.names

    def conversation(self, name: str) -> Conversation:
        """Return the conversation of that name, created if it does not exist. To be called with the lock held.

        Raises:
            PromptTypeError: The name is not a str.
            SessionError: There are ``max_sessions`` conversations, and all are in use.
        """
        _check_name(name)
        conversation = self.conversations.find(name)
        if conversation is None:
            conversation = Conversation(name)
            self._add(conversation)
        else:
            self._make_room_for_images(conversation)
        return conversation

    def _add(self, conversation: Conversation) -> None:
        """Remember a conversation. To be called with the lock held."""
        _check_name(conversation.name)
        self._forget_failed()
        if conversation.name in self.conversations:
            raise SessionError(f"there is a session {conversation.name!r} already: close it, or choose another name")
        forgotten = self.conversations.add(conversation)
        if forgotten is not None:
            self._forget(forgotten)
        self._make_room_for_images(conversation)

    def _make_room_for_images(self, used: Conversation) -> None:
        """Forget conversations if all have too many bytes of images. To be called with the lock held."""
        for forgotten in self.conversations.beyond_image_bytes(used):
            self._forget(forgotten)

    def hold(self, name: str, handle: object) -> None:
        """Let the conversation of that name not be forgotten to make room while ``handle`` exists."""
        with self.lock:
            self._held(name, handle)

    def _held(self, name: str, handle: object | None) -> Conversation:
        """Return a conversation, which ``handle`` holds if there is one. To be called with the lock held."""
        conversation = self.conversation(name)
        if handle is not None:
            conversation.handles.add(handle)
            conversation.opened = True
        return conversation

    def n_tokens(self, name: str) -> int:
        """Return how many tokens the conversation of that name holds; 0 if there is none."""
        conversation = self.conversations.find(name)
        return 0 if conversation is None else len(conversation.tokens)

    def fork(self, name: str, new_name: str | None) -> str:
        """Add a conversation that holds the same as the one called ``name``; return its name.

        To be called with the lock held, until a handle holds the new one.

        Raises:
            PromptTypeError: The name is not a str.
            SessionError: There is a conversation of that name, or there are too many.
        """
        self.check_process()
        source = self.conversation(name)
        branch = Conversation(self.conversations.new_name() if new_name is None else new_name, source.history)
        self._add(branch)
        if self.engine is not None:
            self.engine.share(source, branch)
        return branch.name

    def forget(self, name: str | None = None) -> None:
        """Forget the conversation of that name, if there is one, or all; their generations end as "cancelled"."""
        with self.lock:
            for conversation in self.conversations:
                if name is None or conversation.name == name:
                    self._forget(conversation)

    def _forget(self, conversation: Conversation) -> None:
        """Forget a conversation. To be called with the lock held."""
        self.conversations.forget(conversation)  # from now on, its generations are unwanted
        if self.engine is not None:
            self.engine.forget(conversation)

    def _forget_failed(self) -> None:
        """Forget the conversations whose first call failed. To be called with the lock held."""
        for conversation in self.conversations:
            if conversation.failed:
                self._forget(conversation)

    # -------------------- conversations in files

    def save(self, name: str, path: str | os.PathLike[str]) -> None:
        """Write the conversation of that name to a file, as its last finished generation left it.

        Raises:
            OSError: It cannot be written.
        """
        from .session_file import MAX_IMAGES, SavedImage, SavedSession  # here, since generations do without

        self.check_process()
        with self.lock:
            conversation, engine = self.conversation(name), self.engine
            answer = None if engine is None else engine.save(conversation)
        cached_tokens, state, adapters = ([], None, ()) if answer is None else answer.result()
        tokens, text, replies, images = conversation.history
        if len(images) > MAX_IMAGES:
            raise SessionError(f"the session {name!r} has {len(images)} images, and a file holds at most {MAX_IMAGES}")
        numbers = {key: i for i, key in enumerate(images)}
        try:
            cached_tokens = rekeyed(cached_tokens, numbers)
        except KeyError:  # of an image that the conversation does not have any more
            cached_tokens, state = [], None
        SavedSession(
            name,
            self.identity,
            self._cache_key(adapters),
            rekeyed(tokens, numbers),
            text,
            [(reply.n_tokens, reply.n_chars) for reply in replies],
            cached_tokens,
            state,
            adapters,
            tuple(SavedImage(each.image.width, each.image.height, each.image.rgb) for each in images.values()),
            self.vision.identity if images and self.vision is not None else "",
        ).write(path)

    def read_saved(self, path: str | os.PathLike[str]) -> SavedSession:
        """Return what a file holds of a conversation with this model.

        Raises:
            SessionFileError: The file is damaged, or of another model or version.
            OSError: The file cannot be read.
        """
        from .session_file import SavedSession  # here, since generations do without

        self.check_process()
        saved = SavedSession.read(path)
        if saved.model != self.identity:
            raise SessionFileError(f"{os.fspath(path)!r} was saved with another model than {self.name!r}")
        if saved.images and (self.vision is None or self.vision.identity != saved.projector):
            raise SessionFileError(
                f"{os.fspath(path)!r} has images: load {self.name!r} with the projector that they were seen with"
            )
        return saved

    def restore(self, saved: SavedSession, name: str | None) -> str:
        """Add a conversation that was saved, under ``name`` or its own; return the name.

        Its KV cache is used if it was computed as this runtime computes. To be called with the lock held, until a
        handle holds the conversation.

        Raises:
            PromptTypeError: The name is not a str.
            SessionError: There is a conversation of that name, or there are too many.
        """
        images = self._saved_images(saved)
        keys = {i: image.key for i, image in enumerate(images)}
        if any(token < 0 and not is_cell(token, images) for token in [*saved.tokens, *saved.cached_tokens]):
            raise SessionFileError("the session has tokens of images that it does not have: its file is damaged")
        replies = tuple(Reply(*reply) for reply in saved.replies)
        history = History(rekeyed(saved.tokens, keys), saved.text, replies, {image.key: image for image in images})
        conversation = Conversation(saved.name if name is None else name, history)
        self._add(conversation)
        if saved.state is not None and saved.cache_key == self._cache_key(saved.adapters):
            cached_tokens = rekeyed(saved.cached_tokens, keys)
            self.running_engine().adopt(conversation, cached_tokens, saved.state, saved.adapters)
        return conversation.name

    def _saved_images(self, saved: SavedSession) -> list[PromptImage]:
        """Return the images of a conversation that was saved, with the projector that is loaded."""
        if self.vision is None:
            return []
        from .images import Image  # here, since most conversations do without

        return [self.vision.prompt_image(Image(each.rgb, each.width, each.height)) for each in saved.images]

    def _cache_key(self, adapters: AdapterKey) -> str:
        """Return what the content of a KV cache depends on besides the model's file."""
        names = sorted(name for name in type(self.config).model_fields if name.startswith(("rope_", "yarn_")))
        key = [getattr(self.config, name) for name in names] + sorted(self.config.kv_overrides.items())
        return repr([*key, *adapters])


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise PromptTypeError(f"the name of a session is a str, not {type(name).__name__}: {name!r:.80}")


_alive: weakref.WeakSet[Runtime] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """End all threads while the interpreter is whole: one that runs while it is torn down would crash it."""
    for runtime in list(_alive):
        runtime.stop()


def _renew_locks() -> None:
    for runtime in list(_alive):
        runtime.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
