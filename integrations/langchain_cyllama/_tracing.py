"""The parameters of a call in LangChain's traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import LangSmithParams
from typing_extensions import Unpack

from cyllama import GenerationConfig


def traced(config: GenerationConfig, options: Mapping[str, Any], **known: Unpack[LangSmithParams]) -> LangSmithParams:
    """Return the parameters of a call by their names in traces.

    Args:
        config: The default options.
        options: The options of the call, by cyllama's names.
        **known: The provider, and the name and the type of the model.
    """
    params = LangSmithParams(**known)
    params["ls_temperature"] = options.get("temperature", config.temperature)
    if (max_tokens := options.get("max_tokens", config.max_tokens)) is not None:
        params["ls_max_tokens"] = max_tokens
    if stops := options.get("stop_sequences", config.stop_sequences):
        params["ls_stop"] = [stops] if isinstance(stops, str) else list(stops)
    return params
