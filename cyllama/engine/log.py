"""Logging that never raises: an exception of a handler must not end a generation."""

from __future__ import annotations

import logging
import sys
import traceback


class EngineLogger:
    """A logger for threads that compute: an exception of a handler or a filter is reported on stderr, and not raised.

    :class:`logging.Handler` does the same if its ``emit`` is written as documented.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *args: object, exc_info: bool = False) -> None:
        """Log a message, or report why that failed."""
        self._log(logging.DEBUG, message, *args, exc_info=exc_info)

    def warning(self, message: str, *args: object, exc_info: bool = False) -> None:
        """Log a message, or report why that failed."""
        self._log(logging.WARNING, message, *args, exc_info=exc_info)

    def _log(self, level: int, message: str, *args: object, exc_info: bool) -> None:
        try:
            self._logger.log(level, message, *args, exc_info=exc_info, stacklevel=3)
        except BaseException:  # SystemExit as well: nothing would restart the thread
            if logging.raiseExceptions and sys.stderr is not None:
                traceback.print_exc()
