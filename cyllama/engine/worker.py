"""A thread that computes in a context of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from ..llama.llama_cpp import LlamaContext

ItemT = TypeVar("ItemT")

_JOIN_SECONDS = 0.05
"""How long to wait for a thread before asking whether it has done its work."""


class Worker(ABC, Generic[ItemT]):
    """A thread that takes items from an inbox and computes, and the context it does so in. Both end with :meth:`stop`.

    The inbox is a queue that is safe to use from finalizers and signal handlers.
    """

    def __init__(self, name: str, predecessor: Worker[ItemT] | None) -> None:
        """Make the thread ``name``, which :meth:`start` starts.

        It waits for ``predecessor`` to end first, so that two contexts never exist at once.
        """
        self._inbox: SimpleQueue[ItemT | None] = SimpleQueue()
        self._stopping = False
        self._ended = False
        self._abort_lock = threading.RLock()  # between deciding to abort a decode and doing it, no other may begin
        self._thread = threading.Thread(target=self._run, args=(predecessor,), name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, once everything that it uses exists."""
        try:
            self._thread.start()
        except BaseException:  # Ctrl-C, after which nothing refers to it
            self._stopping = True
            self._inbox.put(None)
            raise

    def stop(self) -> None:
        """Cancel everything, release the context, end the thread. Returns when that is done.

        Only on the thread itself, where a finalizer may call this, it cannot be waited for.
        """
        self._stopping = True
        self._inbox.put(None)
        self._abort_if_unwanted()
        self.join()

    def join(self) -> None:
        """Wait for the thread to end, unless called by it."""
        if threading.current_thread() is self._thread:
            return
        # With a timeout: a signal handler may have interrupted a join() that holds the lock which this one waits for.
        self._thread.join(_JOIN_SECONDS)
        while not self._ended:
            self._thread.join(_JOIN_SECONDS)

    # --- what a worker does

    @abstractmethod
    def _take(self, item: ItemT) -> None:
        """Handle an item of the inbox."""

    @abstractmethod
    def _iterate(self) -> None:
        """Handle what is in the inbox, waiting for it if there is nothing to do, and do one piece of work."""

    @abstractmethod
    def _end(self) -> None:
        """Cancel everything and release the context."""

    @property
    @abstractmethod
    def _decoding(self) -> LlamaContext | None:
        """The context, if it may be decoding. Read from any thread."""

    @abstractmethod
    def _is_unwanted(self) -> bool:
        """Whether no caller waits for the outcome of a decode. Called by any thread."""

    # --- the thread

    def _run(self, predecessor: Worker[ItemT] | None) -> None:
        if predecessor is not None:
            predecessor.join()
        try:
            while not self._stopping:
                self._iterate()
        finally:
            try:
                self._empty_inbox()  # what arrived after the last look and before stop()
                self._end()
            finally:
                self._ended = True

    def _empty_inbox(self) -> None:
        while True:
            try:
                self._take_one(self._inbox.get_nowait())
            except Empty:
                return

    def _wait_for_one(self) -> None:
        """Wait for an item and handle it, unless the thread has to end."""
        if not self._stopping:  # otherwise what stop() put may have been taken already, and no other item comes
            self._take_one(self._inbox.get())

    def _take_one(self, item: ItemT | None) -> None:
        if item is not None:  # None is put by stop()
            self._take(item)

    # --- aborting what no caller waits for

    def _may_decode(self, context: LlamaContext) -> bool:
        """Take back an earlier abort; return whether a caller waits for the next decode."""
        with self._abort_lock:
            context.clear_abort()
            return not self._is_unwanted()  # cancelled after the last look, before the flag was cleared

    def _abort_if_unwanted(self) -> None:
        """Abort the decode in flight if no caller waits for its outcome. Called by any thread."""
        with self._abort_lock:
            context = self._decoding
            if context is not None and self._is_unwanted():
                context.abort()
