"""Images in messages: decoded, checked, and compared by their pixels."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from typing_extensions import Self

from .errors import ConfigTypeError, ImageError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

INSTALL = "pip install 'Pillow>=10.1'"
MAX_BYTES = 32 << 20  # of a file
MAX_PIXELS = 50_000_000  # three bytes each
MAX_SIDE = 32_768  # pixels
KEPT_PIXELS = 8_000_000  # twice what most projectors use; a conversation holds the pixels of all its images
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # few decoders: each one reads what strangers send

#: What an :class:`Image` is made of: a path, a data URL, the bytes of a file, or an image of Pillow.
ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | PillowImage | Image"

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[^,;]*)*),", re.IGNORECASE)
_OTHER_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_WHITE_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, eq=False)
class Image:
    """A decoded image, as a part of a message has it: a value that is compared by its pixels.

    >>> red = Image(bytes([255, 0, 0]) * 4, width=2, height=2)
    >>> red == Image.load(red.to_data_url())
    True
    >>> parts = [{"type": "image", "image": red}, {"type": "text", "text": "Which color is this?"}]
    >>> message = {"role": "user", "content": parts}

    Attributes:
        rgb: Red, green and blue of each pixel, a byte each, line by line from the top.
        width: Pixels of a line.
        height: Lines.
        digest: SHA-256 of size and pixels, 64 hexadecimal digits.
        decoded_pixels: How many pixels were decoded for it, before it was scaled down; by default, those that it has.

    Raises:
        ImageError: The bytes are not those of an image of that size.
    """

    rgb: bytes = field(repr=False)
    width: int
    height: int
    digest: str = field(init=False, repr=False)
    decoded_pixels: int = field(default=0, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        """Check the size, and compute the digest."""
        if self.width < 1 or self.height < 1 or len(self.rgb) != 3 * self.width * self.height:
            raise ImageError(
                f"an image of {self.width} x {self.height} pixels has {3 * self.width * self.height} bytes, three for "
                f"each, not {len(self.rgb)}"
            )
        digest = hashlib.sha256(f"{self.width}x{self.height}:".encode())
        digest.update(self.rgb)
        object.__setattr__(self, "digest", digest.hexdigest())
        if not self.decoded_pixels:
            object.__setattr__(self, "decoded_pixels", self.width * self.height)

    @classmethod
    def load(
        cls,
        source: ImageSource,
        *,
        max_bytes: int = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
        kept_pixels: int = KEPT_PIXELS,
        name: str = "the image",
    ) -> Image:
        """Decode an image with Pillow, upright as its EXIF data says, with white behind what is transparent.

        A large one is scaled down: most projectors use 4 megapixels at most, and a conversation holds all its images.

        >>> black = Image(bytes(12), width=2, height=2)
        >>> Image.load(black.to_data_url())
        Image(width=2, height=2)
        >>> Image.load("missing.png")
        Traceback (most recent call last):
        cyllama.errors.ImageError: cannot read the image at 'missing.png': No such file or directory

        Args:
            source: The path of a PNG, JPEG, WebP, GIF or BMP file, its bytes, a data URL with these, or an image of
                Pillow. Of an animation, the first frame is read.
            max_bytes: Most bytes of the file.
            max_pixels: Most pixels, checked before they are decoded.
            kept_pixels: Most pixels of the result.
            name: What errors call the image.

        Returns:
            The image.

        Raises:
            ImageError: It cannot be read, is of another format, or is too large; or Pillow is missing.
            ConfigTypeError: ``source`` has another type.
        """
        if isinstance(source, Image):
            return source
        limits = _Limits(name, max_bytes, max_pixels, kept_pixels)
        if isinstance(source, str) and (_is_data_url(source) or _OTHER_URL.match(source)):
            return _decoded(_data_of(source, limits), limits)
        if isinstance(source, (str, os.PathLike)):
            return _decoded(_read(Path(source), limits), limits)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _decoded(bytes(source), limits)
        if not hasattr(source, "getexif"):
            raise ConfigTypeError(
                f"{name} is a path, a data URL, the bytes of a file or an image of Pillow, not "
                f"{type(source).__name__}: {source!r:.80}"
            )
        return _converted(source, limits)

    @classmethod
    def from_url(
        cls, url: str, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS, name: str = "the image"
    ) -> Image:
        """Decode the image of a data URL, ``data:image/png;base64,...``. No other text is an address or a path here.

        >>> Image.from_url("https://example.com/cat.png")
        Traceback (most recent call last):
        cyllama.errors.ImageError: the image is at 'https://example.com/cat.png', and no address is fetched: ...

        Args:
            url: The data URL.
            max_bytes: Most bytes of the file.
            max_pixels: Most pixels, checked before they are decoded.
            name: What errors call the image.

        Returns:
            The image.

        Raises:
            ImageError: It is another address, its base64 is broken, or :meth:`load` refuses its data.
        """
        limits = _Limits(name, max_bytes, max_pixels)
        return _decoded(_data_of(url, limits), limits)

    @classmethod
    def from_base64(
        cls, text: str, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS, name: str = "the image"
    ) -> Image:
        """Decode an image whose file is given as base64.

        >>> _, _, data = Image(bytes(12), width=2, height=2).to_data_url().partition(",")
        >>> Image.from_base64(data)
        Image(width=2, height=2)

        Args:
            text: The base64.
            max_bytes: Most bytes of the file.
            max_pixels: Most pixels, checked before they are decoded.
            name: What errors call the image.

        Returns:
            The image.

        Raises:
            ImageError: The base64 is broken, or :meth:`load` refuses its data.
        """
        limits = _Limits(name, max_bytes, max_pixels)
        return _decoded(_from_base64(text, limits), limits)

    def to_data_url(self) -> str:
        """Return the image as the data URL of a PNG file, as OpenAI's API takes it.

        >>> Image(bytes(12), width=2, height=2).to_data_url()[:30]
        'data:image/png;base64,iVBORw0K'
        """
        buffer = BytesIO()
        _pillow().frombytes("RGB", (self.width, self.height), self.rgb).save(buffer, "PNG")
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __deepcopy__(self, memo: object) -> Self:
        return self


@dataclass(frozen=True)
class _Limits:
    """What an image may be, and what errors call it."""

    name: str
    max_bytes: int
    max_pixels: int
    kept_pixels: int = KEPT_PIXELS

    def check_bytes(self, n: int) -> None:
        if n > self.max_bytes:
            raise ImageError(
                f"{self.name} has {n / 2**20:.1f} MiB, and at most {self.max_bytes / 2**20:.1f} MiB are read: scale it "
                "down, or save it as a JPEG"
            )

    def check_size(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise ImageError(f"{self.name} has no pixels: it is {width} x {height}")
        if width * height > self.max_pixels or max(width, height) > MAX_SIDE:
            raise ImageError(
                f"{self.name} has {width} x {height} pixels, and at most {self.max_pixels} are decoded, with sides "
                f"up to {MAX_SIDE}: scale it down"
            )


def _pillow() -> Any:
    """Return the module `PIL.Image`."""
    try:
        import PIL.Image
    except ImportError as error:
        raise ImageError(f"images are decoded with Pillow, which is missing: {INSTALL}") from error
    return PIL.Image


# -------------------- from a source to the bytes of a file


def _is_data_url(text: str) -> bool:
    return text[:5].lower() == "data:"


def _data_of(url: str, limits: _Limits) -> bytes:
    if not isinstance(url, str):
        raise ImageError(f"the address of {limits.name} is a str, not {type(url).__name__}: {url!r:.80}")
    if not _is_data_url(url):
        raise ImageError(
            f"{limits.name} is at {url[:80]!r}, and no address is fetched: pass its data as 'data:image/png;base64,...'"
        )
    match = _DATA_URL.match(url)
    if match is None or not match[2].lower().endswith(";base64"):
        raise ImageError(f"{limits.name} is not 'data:image/...;base64,...': its address begins with {url[:40]!r}")
    kind = (match[1] or "").lower()
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise ImageError(f"{limits.name} has the type {kind!r:.80}, which is not one of an image")
    return _from_base64(url[match.end() :], limits)


def _from_base64(text: str, limits: _Limits) -> bytes:
    if not isinstance(text, str):
        raise ImageError(f"the data of {limits.name} is base64, a str, not {type(text).__name__}: {text!r:.80}")
    limits.check_bytes(len(text) * 3 // 4 - 2)
    try:
        data = base64.b64decode(_WHITE_SPACE.sub("", text), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: a character is not one of ASCII
        raise ImageError(f"the base64 of {limits.name} is broken: {error}") from None
    return data


def _read(path: Path, limits: _Limits) -> bytes:
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a zero byte; RuntimeError: no home folder
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageError(f"cannot read {limits.name} at {os.fspath(path)[:200]!r}: {reason}") from error
    if len(data) > limits.max_bytes:
        limits.check_bytes(path.stat().st_size)
    return data


# -------------------- from the bytes of a file to pixels


def _decoded(data: bytes, limits: _Limits) -> Image:
    limits.check_bytes(len(data))
    module = _pillow()
    if not data:
        raise ImageError(f"{limits.name} is empty: it has no bytes")
    try:
        image = module.open(BytesIO(data), formats=FORMATS)  # reads the header only
    except module.UnidentifiedImageError:
        raise ImageError(
            f"{limits.name} is not a PNG, JPEG, WebP, GIF or BMP file: it begins with {data[:12]!r}"
        ) from None
    except (module.DecompressionBombError, module.DecompressionBombWarning) as error:  # if warnings are errors
        raise ImageError(
            f"{limits.name} has more than the {limits.max_pixels} pixels that are decoded at most: scale it down"
        ) from error
    except Exception as error:  # what else the decoders of Pillow raise for broken files has no common type
        raise ImageError(f"{limits.name} cannot be read: {error}") from error
    with image:
        return _converted(image, limits)


def _converted(image: PillowImage, limits: _Limits) -> Image:
    """Return an image of Pillow as a value; its pixels may not be decoded yet."""
    limits.check_size(*image.size)
    try:
        image.load()
        flat = _scaled(_flat(_upright(image)), limits.kept_pixels)
        return Image(flat.tobytes(), *flat.size, decoded_pixels=image.width * image.height)
    except Exception as error:  # as above
        raise ImageError(f"{limits.name} is damaged, or cut off: {error}") from error


def _upright(image: PillowImage) -> PillowImage:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data of an image that can be decoded: it says nothing about the orientation
        return image


def _scaled(image: PillowImage, most: int) -> PillowImage:
    """Return an image without more pixels than that."""
    factor = (most / (image.width * image.height)) ** 0.5
    if factor >= 1:
        return image
    size = max(1, int(image.width * factor)), max(1, int(image.height * factor))
    return image.resize(size, _pillow().Resampling.LANCZOS, reducing_gap=3.0)


def _flat(image: PillowImage) -> PillowImage:
    """Return an image in RGB, with white behind what is transparent."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = _pillow().new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")
