"""Where models of the hub are looked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """Where a model is looked for.

    Attributes:
        revision: A branch, a tag or a commit; ``None`` for the main branch.
        token: An access token; ``None`` for the one of the environment or of the log-in.
        cache_dir: The cache; ``None`` for the one that all tools share.
        local_files_only: Whether only the cache is looked into.
    """

    revision: str | None = None
    token: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False

    @property
    def cache(self) -> Path:
        """The folder of the cache."""
        from huggingface_hub import constants

        return Path(os.path.expanduser(self.cache_dir or constants.HF_HUB_CACHE))  # noqa: PTH111 - raises for no user

    @property
    def offline(self) -> bool:
        """Whether nothing may be downloaded."""
        from huggingface_hub import constants

        return self.local_files_only or constants.HF_HUB_OFFLINE
