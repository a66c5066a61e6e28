"""One conversation at a time, for a model with memory for one only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from .llm import LLM


class Exclusivity:
    """Which calls may begin, where a model holds one conversation at a time.

    A call begins from when it is let in until its generation was handed over. The context is dropped for another
    conversation only while no call begins and no generation runs.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._current: Hashable | None = None
        self._beginning = 0
        self._waiting = 0
        self._switching = False

    @contextmanager
    def in_line(self, key: Hashable | None) -> Iterator[bool]:
        """Count a call as waiting if it belongs to another conversation than the current one, and say whether it does.

        While one waits, no call of the current conversation begins.
        """
        with self._lock:
            switches = self._switches(key)
            self._waiting += switches
        try:
            yield switches
        finally:
            with self._lock:
                self._waiting -= switches

    def try_to_begin(self, llm: LLM, key: Hashable | None, in_line: bool, when_dropped: Callable[[], None]) -> bool:
        """Let a call begin if it may now. The context is dropped first where it belongs to another conversation.

        Args:
            llm: The model.
            key: The conversation, if it has to be the only one.
            in_line: Whether the call counts as waiting.
            when_dropped: Called after the context was dropped.
        """
        with self._lock:
            switches = self._switches(key)
            if self._switching or (self._waiting and not in_line) or (self._beginning and switches):
                return False
            if not switches:
                self._current = key or self._current
                self._beginning += 1
                return True
            self._switching = True
        try:
            stats = llm.stats
            if stats.running or stats.waiting:
                return False
            llm.reset_context()
            when_dropped()
            with self._lock:
                self._current = key
                self._beginning += 1
            return True
        finally:
            self._switching = False

    def end_beginning(self) -> None:
        """Note that the generation of a call was handed over, or that the call ended without one."""
        with self._lock:
            self._beginning -= 1

    def renew_lock(self) -> None:
        """Replace the lock in a forked child."""
        self._lock = threading.RLock()

    def _switches(self, key: Hashable | None) -> bool:
        return key is not None and self._current not in (None, key)
