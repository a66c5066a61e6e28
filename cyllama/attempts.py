"""Sampling again where an answer is not valid under its schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from .config import GenerationConfig
from .errors import ConfigError, OutputError
from .response import Response

if TYPE_CHECKING:
    from .chat import ChatResponse

MAX_ATTEMPTS = 100
MAX_SEED = 2**32 - 1  # llama.cpp draws a random seed for this value
_TEMPERATURE = 0.7  # of later attempts if it was 0, because the first answer would be repeated

AnyResponse = TypeVar("AnyResponse", Response, "ChatResponse")
AnswerT = TypeVar("AnswerT")


def check_attempts(max_attempts: object, **excluding: bool) -> int:
    """Return ``max_attempts`` if it is valid.

    Args:
        max_attempts: The option.
        **excluding: Whether other options are in use, by name: those that show text to the caller before it is valid.

    Raises:
        ConfigError: It is not an integer from 1 to 100, or is more than 1 with one of the other options.
    """
    if not isinstance(max_attempts, int) or isinstance(max_attempts, bool) or not 1 <= max_attempts <= MAX_ATTEMPTS:
        raise ConfigError(f"max_attempts is an integer from 1 to {MAX_ATTEMPTS}, not {max_attempts!r:.80}")
    for name, used in excluding.items():
        if used and max_attempts > 1:
            raise ConfigError(f"max_attempts={max_attempts} and {name} exclude each other: pass max_attempts=1")
    return max_attempts


class Attempts(Generic[AnswerT]):
    """The attempts of one call, until one gives a valid answer, there are no more, or the call is cancelled.

    It is the same for threads and event loops::

        tries = Attempts(config, max_attempts, is_valid)
        for config in tries:
            with tries.attempt():
                tries.answer = generate(config)  # or: await agenerate(config)
        return tries.answer

    Args:
        config: The options of the first attempt.
        max_attempts: How often to sample at most.
        is_valid: Returns whether another attempt is of no use.
        is_cancelled: Returns whether the caller has given up the call: then there is no other attempt.

    Attributes:
        answer: The latest answer.
    """

    answer: AnswerT

    def __init__(
        self,
        config: GenerationConfig,
        max_attempts: int,
        is_valid: Callable[[AnswerT], bool],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_valid = is_valid
        self._is_cancelled = is_cancelled
        self._configs = attempts(config, max_attempts)
        self._left = max_attempts
        self._settled = False

    def __iter__(self) -> Iterator[GenerationConfig]:
        for config in self._configs:
            if self._settled:
                return
            self._left -= 1
            yield config

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Check the answer of an attempt on the way out; let an :class:`OutputError` pass only in the last attempt."""
        try:
            yield
        except OutputError:  # a call of a strict tool
            if not self._left or self._is_cancelled():
                raise
        else:
            self._settled = not self._left or self._is_cancelled() or self._is_valid(self.answer)


def attempts(config: GenerationConfig, max_attempts: int) -> Iterator[GenerationConfig]:
    """Yield the options of each attempt: from the second one on with another seed, and a temperature above 0.

    They are reproducible if ``config`` has a seed, or temperature 0.

    >>> [(each.temperature, each.seed) for each in attempts(GenerationConfig(temperature=0), 3)]
    [(0.0, None), (0.7, 1), (0.7, 2)]
    """
    yield config
    for attempt in range(1, max_attempts):
        seed = config.seed
        changed: dict[str, float] = {}
        if config.temperature <= 0:
            changed["temperature"] = _TEMPERATURE
            seed = seed or 0
        if seed is not None:
            changed["seed"] = (seed + attempt) % MAX_SEED
        yield config.merge(**changed)


def is_valid(response: Response | ChatResponse) -> bool:
    """Whether another attempt is of no use: the value is valid, or the answer was cut, or no value is expected."""
    if response.finish_reason != "stop":
        return True
    try:
        _ = response.parsed
    except OutputError:
        return False
    return True
