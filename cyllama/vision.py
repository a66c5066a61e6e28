"""A projector: what a model sees images with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .config import ModelConfig
from .engine import ImageEncoder, PromptImage
from .engine.context_params import CPU
from .engine.encoder import with_way_out
from .engine.hardware import physical_cores
from .engine.memory_needs import gpus
from .errors import ImageError, ProjectorLoadError
from .llama.llama_cpp import LlamaModel, LlamaProjector, projector_memory
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


def find_projector(config: ModelConfig, model_path: Path) -> Path | None:
    """Return the file of the projector that the options name, if they name one.

    Args:
        config: The options.
        model_path: The file of the model, beside which "auto" looks. If there is no such file, there is no projector.

    Raises:
        ModelNotFoundError: No projector is beside the model, or has that name on the hub.
        ModelDownloadError: It cannot be downloaded.
    """
    if config.projector is None or not model_path.exists():  # then the missing model is what an error tells of
        return None
    return resolve_projector(config.projector, model_path)


def projector_needs(path: Path, config: ModelConfig) -> dict[str, int]:
    """Return the bytes that a projector needs, by device: for its tensors, and to read a large image.

    Where a device has less, its file is counted: it may have room for smaller images.

    Raises:
        ProjectorLoadError: There is no such file, or it is not a projector, or damaged.
    """
    with _load_errors(path):
        try:
            return projector_memory(path, use_gpu=_on_gpu(config))
        except MemoryError:
            device = next((gpu.name for gpu in gpus() if _on_gpu(config)), CPU)
            return {device: path.stat().st_size}


def load_vision(model: LlamaModel, config: ModelConfig, path: Path | None) -> Vision | None:
    """Load a projector.

    Args:
        model: The model.
        config: The options.
        path: The file of the projector; ``None`` for none.

    Raises:
        ProjectorLoadError: There is no such file, or it is not a projector of this model, or damaged, or does not fit
            into the memory.
    """
    if path is None:
        return None
    n_threads = config.n_threads_batch or config.n_threads or physical_cores()
    with _load_errors(path):
        return Vision(LlamaProjector(model, path, n_threads=n_threads, use_gpu=_on_gpu(config)), config)


def _on_gpu(config: ModelConfig) -> bool:
    """Return whether a projector is loaded on a GPU, if there is one."""
    chosen = not config.devices or any(gpu.name in config.devices for gpu in gpus())
    return config.n_gpu_layers != 0 and chosen


@contextmanager
def _load_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ProjectorLoadError(f"there is no projector file at {str(path)!r}") from None
    except OSError as error:
        raise ProjectorLoadError(f"cannot read the projector at {str(path)!r}: {error.strerror}") from error
    except (ValueError, RuntimeError) as error:
        raise ProjectorLoadError(with_way_out(str(error))) from error
