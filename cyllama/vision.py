"""A projector: what a model sees images with."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .config import ModelConfig
from .engine import ImageEncoder, PromptImage
from .engine.hardware import physical_cores
from .errors import ImageError, ProjectorLoadError
from .llama.llama_cpp import LlamaModel, LlamaProjector
from .models.identity import model_identity
from .models.projectors import resolve_projector

if TYPE_CHECKING:
    from .images import Image

_SIZES = 256  # of images, whose numbers of tokens are remembered


class Vision:
    """The projector of a model, and the encoder that computes with it. All methods may be called from any thread.

    Attributes:
        encoder: Makes embeddings of images.
    """

    def __init__(self, projector: LlamaProjector, config: ModelConfig) -> None:
        """Use a projector with the options of its model."""
        self.encoder = ImageEncoder(projector, config.image_cache_mb * 2**20)
        self.identity = model_identity(Path(projector.path))
        self.non_causal = projector.non_causal
        self._projector = projector
        self._n_ubatch = config.n_ubatch
        self._parts: dict[tuple[int, int], list[list[int] | int]] = {}  # by width and height: the same for all pixels
        self._lock = threading.Lock()

    def prompt_image(self, image: Image) -> PromptImage:
        """Return what an image is in a prompt.

        Raises:
            ImageError: The projector cannot take it.
        """
        size = image.width, image.height
        parts = self._parts.get(size)
        if parts is None:
            parts = self._parts_of(image)
            with self._lock:
                while len(self._parts) >= _SIZES:
                    del self._parts[next(iter(self._parts))]
                self._parts[size] = parts
        return PromptImage.of(image, self.identity, parts, whole=self.non_causal)

    def _parts_of(self, image: Image) -> list[list[int] | int]:
        try:
            parts = self._projector.prepare(image.rgb, image.width, image.height).parts
        except (ValueError, RuntimeError) as error:
            raise ImageError(f"the projector cannot take the image: {error}") from error
        largest = max((part for part in parts if isinstance(part, int)), default=0)
        if self.non_causal and largest > self._n_ubatch:
            raise ImageError(
                f"the image has {largest} tokens that attend to each other, and n_ubatch is {self._n_ubatch}: raise "
                f"n_ubatch in ModelConfig to {largest} at least"
            )
        return parts


def load_vision(model: LlamaModel, config: ModelConfig, model_path: Path) -> Vision | None:
    """Load the projector that the options name, if they name one.

    Args:
        model: The model.
        config: The options.
        model_path: The file of the model, beside which "auto" looks.

    Raises:
        ModelNotFoundError: No projector is beside the model, or has that name on the hub.
        ModelDownloadError: It cannot be downloaded.
        ProjectorLoadError: There is no such file, or it is not a projector of this model, or damaged.
    """
    if config.projector is None:
        return None
    path = os.fspath(resolve_projector(config.projector, model_path))
    n_threads = config.n_threads_batch or config.n_threads or physical_cores()
    on_gpu = config.n_gpu_layers != 0
    try:
        projector = LlamaProjector(model, path, n_threads=n_threads, use_gpu=on_gpu)
    except FileNotFoundError:
        raise ProjectorLoadError(f"there is no projector file at {path!r}") from None
    except OSError as error:
        raise ProjectorLoadError(f"cannot read the projector at {path!r}: {error.strerror}") from error
    except (ValueError, RuntimeError) as error:
        raise ProjectorLoadError(str(error)) from error
    return Vision(projector, config)
