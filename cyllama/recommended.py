"""The sampling that a model's file recommends (``general.sampling.*``), and the defaults of calls that follow."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from .config import SAMPLERS, ConfigLike, GenerationConfig, as_config, by_own_names
from .errors import ConfigError

logger = logging.getLogger(__name__)

_PREFIX = "general.sampling."
_NUMBERS = {
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "temp": "temperature",
    "penalty_last_n": "penalty_last_n",
    "penalty_repeat": "repeat_penalty",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}
_INTEGERS = frozenset({"top_k", "penalty_last_n", "mirostat"})
_OFF_BELOW_0 = frozenset({"top_k", "temperature"})  # to llama.cpp, less than 0 is as 0
_SEQUENCE = "sequence"
_OTHER_NAMES = {"nucleus": "top_p", "temp": "temperature", "typ": "typ_p"}
_OPTIONS_OF = {
    "penalties": ("repeat_penalty", "penalty_last_n", "frequency_penalty", "presence_penalty"),
    "dry": ("dry_multiplier",),
    "top_n_sigma": ("top_n_sigma",),
    "top_k": ("top_k",),
    "typ_p": ("typical_p",),
    "top_p": ("top_p",),
    "min_p": ("min_p",),
    "xtc": ("xtc_probability",),
    "temperature": ("temperature",),
}


class RecommendedSampling:
    """The options that a model's file recommends instead of the defaults of :class:`GenerationConfig`.

    Args:
        metadata: The metadata of the file.
        overrides: Values to use instead of those of the file, as in ``kv_overrides``.

    Attributes:
        options: The options that the file recommends, by their names in :class:`GenerationConfig`.
    """

    def __init__(self, metadata: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> None:
        values = {**metadata, **(overrides or {})}
        self.options: dict[str, Any] = {}
        for name, option in _NUMBERS.items():
            if f"{_PREFIX}{name}" in values:
                self._put(name, option, _number(option, values[f"{_PREFIX}{name}"]))
        if f"{_PREFIX}{_SEQUENCE}" in values:
            self._put(_SEQUENCE, "samplers", _samplers(str(values[f"{_PREFIX}{_SEQUENCE}"])))

    def _put(self, name: str, option: str, value: Any) -> None:
        """Add an option, unless its value is not valid: a model is not refused for what it recommends."""
        try:
            if value is None:
                raise ConfigError("its value cannot be read")
            self.options[option] = getattr(GenerationConfig(**{option: value}), option)
        except ConfigError as error:
            logger.warning("the model recommends a %s%s that is left out: %s", _PREFIX, name, error)

    def under(self, given: GenerationConfig) -> GenerationConfig:
        """Return options with the recommended ones for those that are not set in ``given``.

        If ``given`` sets an option of a sampler that the recommended order leaves out, the sampler is added at its
        default place.
        """
        recommended = {name: value for name, value in self.options.items() if name not in given.model_fields_set}
        if not recommended:
            return given
        order = recommended.get("samplers")
        if order is not None:
            recommended["samplers"] = _with_given(order, given.model_fields_set)
        return GenerationConfig(**recommended, **{name: getattr(given, name) for name in given.model_fields_set})


class Defaults:
    """The options of generations that a call does not give.

    They are those that the :class:`LLM` was given, else those that the model's file recommends, else those of
    :class:`GenerationConfig`.

    Attributes:
        config: The options of a call that gives none.
    """

    def __init__(self, given: GenerationConfig, recommended: RecommendedSampling) -> None:
        self.config = recommended.under(given)
        self._given = given
        self._recommended = recommended

    @property
    def recommended(self) -> dict[str, Any]:
        """The options that the model's file recommends, by name."""
        return dict(self._recommended.options)

    def merge(self, config: ConfigLike, overrides: Mapping[str, Any]) -> GenerationConfig:
        """Return the options of a call.

        Args:
            config: Its options as a config or a dict.
            overrides: Its options by name, which precede those of ``config``.

        Raises:
            ConfigError: An option has a value out of its range.
            ConfigTypeError: There is no such option, or ``config`` has the wrong type.
        """
        if config is None and not overrides:
            return self.config
        given = as_config(GenerationConfig, config)
        options = {name: getattr(given, name) for name in given.model_fields_set}
        return self._recommended.under(self._given.merge(**(options | by_own_names(overrides))))


def _number(option: str, value: object) -> float | int | None:
    """Return a number as llama.cpp reads it, from the beginning of a text; ``None`` if there is none."""
    found = re.match(r"\s*[-+]?\d+" if option in _INTEGERS else r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", str(value))
    if found is None:
        return None
    number = int(found[0]) if option in _INTEGERS else round(float(found[0]), 6)  # written as 32 bits
    if not math.isfinite(number):
        return None
    return max(number, 0) if option in _OFF_BELOW_0 else number


def _samplers(text: str) -> tuple[str, ...] | None:
    names = (name.strip().lower() for name in text.split(";"))
    known = {name.replace("_", joint): name for name in SAMPLERS for joint in ("_", "-", "")} | _OTHER_NAMES
    return tuple(known[name] for name in names if name in known) or None


def _with_given(order: tuple[str, ...], given: set[str]) -> tuple[str, ...]:
    missing = {name for name in SAMPLERS if name not in order and given.intersection(_OPTIONS_OF[name])}
    result = list(order)
    for name in SAMPLERS:
        if name in missing:
            later = set(SAMPLERS[SAMPLERS.index(name) + 1 :])
            place = next((i for i, other in enumerate(result) if other in later), len(result))
            result.insert(place, name)
    return tuple(result)
