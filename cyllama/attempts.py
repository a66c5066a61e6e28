"""Sampling again where an answer is not valid under its schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from .config import GenerationConfig
from .errors import ConfigError, OutputError
from .response import ChatResponse, Response

MAX_ATTEMPTS = 100
MAX_SEED = 2**32 - 1  # that one means a random seed to llama.cpp
_TEMPERATURE = 0.7  # of later attempts, where it was 0: the first answer would come again

AnyResponse = TypeVar("AnyResponse", Response, ChatResponse)


def check_attempts(max_attempts: object, **excluding: bool) -> int:
    """Return how often to sample at most.

    Args:
        max_attempts: The option.
        **excluding: Options by name, and whether they are in use: they hand over text that cannot be taken back.

    Raises:
        ConfigError: It is not a number of attempts, or cannot be combined.
    """
    if not isinstance(max_attempts, int) or isinstance(max_attempts, bool) or not 1 <= max_attempts <= MAX_ATTEMPTS:
        raise ConfigError(f"max_attempts is an integer from 1 to {MAX_ATTEMPTS}, not {max_attempts!r:.80}")
    for name, used in excluding.items():
        if used and max_attempts > 1:
            raise ConfigError(f"max_attempts={max_attempts} and {name} exclude each other: pass max_attempts=1")
    return max_attempts


def attempts(config: GenerationConfig, max_attempts: int) -> Iterator[GenerationConfig]:
    """Yield the options of each attempt: with another seed, and a temperature above 0, from the second one on.

    The attempts of a call with a seed, or with temperature 0, are the same every time.
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
    """Whether sampling again would not help: the value is valid, or the answer was cut, or there is no value."""
    if response.finish_reason != "stop":
        return True
    try:
        _ = response.parsed
    except OutputError:
        return False
    return True
