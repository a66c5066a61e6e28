"""Images from files, data URLs, bytes and Pillow: what is decoded, and what is refused before it is."""

from __future__ import annotations

import base64
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyllama import ConfigTypeError, CyllamaError, Image, ImageError, PromptError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def picture(width: int = 20, height: int = 10, mode: str = "RGB") -> PIL.Image.Image:
    """A picture that is red on the left and blue on the right."""
    picture = PIL.Image.new("RGB", (width, height), "red")
    picture.paste((0, 0, 255), (width // 2, 0, width, height))
    return picture.convert(mode)


def encoded(picture: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixel(image: Image, x: int, y: int) -> tuple[int, ...]:
    start = 3 * (y * image.width + x)
    return tuple(image.rgb[start : start + 3])


def png_of_size(width: int, height: int) -> bytes:
    """A small PNG file that says it has a size, and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# -------------------- what is read


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_its_bytes_and_its_data_url_are_the_same_image(kind: str, tmp_path: Path):
    data = encoded(picture(), kind)
    path = tmp_path / f"picture.{kind.lower()}"
    path.write_bytes(data)
    text = base64.b64encode(data).decode()
    image = Image.load(data)
    assert (image.width, image.height) == (20, 10)
    red, blue = pixel(image, 1, 5), pixel(image, 18, 5)
    assert red[0] > 200 > 60 > red[2]
    assert blue[2] > 200 > 60 > blue[0]
    url = f"data:image/{kind.lower()};base64,{text}"
    with PIL.Image.open(path) as opened:
        others = [Image.load(path), Image.load(str(path)), Image.load(url), Image.from_url(url), Image.load(opened)]
    others += [Image.from_base64("\n".join(text[i : i + 76] for i in range(0, len(text), 76))), Image.load(image)]
    assert {*others} == {image}
    assert {each.digest for each in others} == {image.digest}


def test_an_image_is_a_value_that_is_compared_by_its_pixels():
    image, other = Image.load(picture()), Image.load(picture(21))
    assert image == Image(image.rgb, 20, 10)
    assert image != other
    assert image != Image(image.rgb, 10, 20)  # the same bytes
    assert pickle.loads(pickle.dumps(image)) == image
    assert repr(image) == "Image(width=20, height=10)"
    with pytest.raises(AttributeError):
        image.width = 3  # pyright: ignore[reportAttributeAccessIssue] - that it cannot be set is the test
    with pytest.raises(ImageError, match="3 x 2 pixels has 18 bytes, three for each, not 17"):
        Image(bytes(17), 3, 2)


def test_an_image_as_a_data_url_is_the_same_image():
    image = Image.load(picture())
    assert Image.from_url(image.to_data_url()) == image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("orientation", "turn"), [(3, 180), (6, 270), (8, 90)])
def test_a_photo_is_turned_as_its_camera_was(kind: str, orientation: int, turn: int):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    image = Image.load(encoded(picture(), kind, exif=exif.tobytes(), **lossless))
    expected = picture().rotate(turn, expand=True)
    assert (image.width, image.height) == expected.size
    for x, y in ((1, 1), (expected.width - 2, expected.height - 2)):
        wanted = expected.getpixel((x, y))
        assert isinstance(wanted, tuple)
        assert max(abs(a - b) for a, b in zip(pixel(image, x, y), wanted, strict=True)) < 60


def test_a_broken_orientation_does_not_matter():
    image = Image.load(encoded(picture(), exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01"))
    assert image == Image.load(picture())


def test_white_is_behind_what_is_transparent():
    clear = PIL.Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    palette = picture(2, 1, "P")
    assert Image.load(encoded(clear)).rgb == b"\xff\xff\xff\xff\x00\x00"
    assert Image.load(encoded(PIL.Image.new("LA", (1, 1), (0, 0)))).rgb == b"\xff\xff\xff"
    assert Image.load(encoded(palette, transparency=palette.getpixel((0, 0)))).rgb == b"\xff\xff\xff\x00\x00\xff"
    half = Image.load(encoded(PIL.Image.new("RGBA", (1, 1), (0, 0, 0, 128))))
    assert all(120 < value < 136 for value in half.rgb)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16"])
def test_pictures_of_other_kinds_keep_their_brightness(mode: str):
    if mode == "I;16":
        gray = PIL.Image.frombytes("I;16", (1, 1), struct.pack("<H", 0x8080))
        assert Image.load(encoded(gray)).rgb == b"\x80\x80\x80"
    else:
        white = PIL.Image.new("L", (1, 1), 255).convert("RGB").convert(mode)
        assert Image.load(encoded(white, "JPEG" if mode == "CMYK" else "PNG")).rgb == b"\xff\xff\xff"


def test_of_an_animation_the_first_frame_is_read():
    frames = [PIL.Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        image = Image.load(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert image.rgb[0] > 200, kind


def test_an_image_that_is_larger_than_most_projectors_use_is_scaled_down():
    image = Image.load(encoded(picture(6000, 3000), "JPEG"))
    assert (image.width, image.height) == (4000, 2000)
    assert image.decoded_pixels == 6000 * 3000
    assert max(abs(a - b) for a, b in zip(pixel(image, 10, 10), (255, 0, 0), strict=True)) < 10
    small = Image.load(picture(4000, 2000))
    assert (small.width, small.decoded_pixels) == (4000, 4000 * 2000)
    assert Image(bytes(12), width=2, height=2).decoded_pixels == 4
    assert Image(bytes(12), width=2, height=2, decoded_pixels=18).decoded_pixels == 18
    assert Image.load(picture(6000, 3000), kept_pixels=20_000_000).width == 6000


# -------------------- what is refused


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "https://example.com/cat.png", "file:///etc/passwd"])
def test_no_address_is_fetched(url: str):
    for read in (Image.load, Image.from_url):
        with pytest.raises(ImageError, match="no address is fetched: pass its data as 'data:image/png;base64"):
            read(url)


def test_a_url_is_never_a_path(tmp_path: Path):
    path = tmp_path / "cat.png"
    path.write_bytes(encoded(picture()))
    for text in (str(path), "cat.png", ""):
        with pytest.raises(ImageError, match="no address is fetched"):
            Image.from_url(text)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png;base64,%%%", "the base64 of the image is broken"),
        ("data:image/png;base64,iVBORw0KGgo", "the base64 of the image is broken"),
        ("data:image/png;base64,ä", "the base64 of the image is broken"),
        ("data:image/png;base64,", "the image is empty"),
        ("data:image/png,abc", r"is not 'data:image/\.\.\.;base64,\.\.\.'"),
        ("data:", r"is not 'data:image/\.\.\.;base64,\.\.\.'"),
        ("data:text/plain;base64,aGVsbG8=", "has the type 'text/plain', which is not one of an image"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "is not a PNG, JPEG, WebP, GIF or BMP file: it begins with b'<svg/>'"),
    ],
)
def test_a_broken_data_url_is_an_error_that_says_what_is_wrong(url: str, message: str):
    with pytest.raises(ImageError, match=message):
        Image.from_url(url)


def test_a_bomb_is_refused_before_it_is_decoded():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        with pytest.raises(ImageError, match="has more than the 50000000 pixels that are decoded"):
            Image.load(png_of_size(30_000, 30_000))
        for width, height in ((12_000, 12_000), (100_000, 1)):
            with pytest.raises(ImageError, match=f"has {width} x {height} pixels, and at most 50000000 are decoded"):
                Image.load(png_of_size(width, height))
    with pytest.raises(ImageError, match="has more than the 50000000 pixels"):  # where warnings are errors
        Image.load(png_of_size(12_000, 12_000))
    with pytest.raises(ImageError, match="has 20 x 10 pixels, and at most 100"):
        Image.load(encoded(picture()), max_pixels=100)
    with pytest.raises(ImageError, match="has 20 x 10 pixels, and at most 100"):
        Image.load(picture(), max_pixels=100)


def test_a_large_file_is_refused(tmp_path: Path):
    path = tmp_path / "large.png"
    path.write_bytes(encoded(picture()) + bytes(3 << 20))
    url = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    for source in (path, path.read_bytes(), url):
        with pytest.raises(ImageError, match=r"has 3\.0 MiB, and at most 2\.0 MiB are read: scale it down"):
            Image.load(source, max_bytes=2 << 20)
        assert Image.load(source).width == 20  # what follows the image is ignored


@pytest.mark.parametrize("name", ["missing.png", ".", "a\0b", "x" * 5000])
def test_a_path_that_cannot_be_read_is_an_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match="cannot read the image at"):
        Image.load(name)


@pytest.mark.parametrize("source", [None, 3, [], {"url": "data:"}])
def test_other_types_are_refused(source: Any):
    with pytest.raises(ConfigTypeError, match="the image is a path, a data URL, the bytes of a file"):
        Image.load(source)


@pytest.mark.parametrize("source", [None, 3, [], b"data:"])
def test_other_types_of_urls_and_base64_are_refused(source: Any):
    for read in (Image.from_url, Image.from_base64):
        with pytest.raises(ImageError, match=r"is a str|is base64, a str"):
            read(source)


def test_errors_are_those_of_prompts():
    assert issubclass(ImageError, PromptError)
    assert issubclass(ImageError, CyllamaError)
    with pytest.raises(ImageError, match="image 2 of message 1 is empty"):
        Image.load(b"", name="image 2 of message 1")


def test_without_pillow_the_error_says_how_to_install_it():
    program = (
        "import sys; sys.modules['PIL'] = None\n"
        "from cyllama import Image, ImageError\n"
        "try: Image.load(b'GIF89a')\n"
        "except ImageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "images are decoded with Pillow, which is missing: pip install 'Pillow>=10.1'"


# -------------------- any bytes

FILES = {kind: encoded(PIL.Image.effect_noise((40, 30), 90).convert("RGB"), kind) for kind in FORMATS} | {
    "animation": encoded(picture(8, 8), "GIF", save_all=True, append_images=[picture(8, 8).rotate(90)]),
    "progressive": encoded(picture(64, 64), "JPEG", progressive=True),
    "palette": encoded(picture(8, 8, "P"), "PNG", transparency=0),
}
STARTS = (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x10\x00\x00\x00WEBPVP8 ", b"BM")


def is_an_image_or_an_error(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about files that are damaged
        try:
            image = Image.load(data)
        except ImageError:
            return
    assert len(image.rgb) == 3 * image.width * image.height


@given(st.sampled_from(STARTS), st.binary(max_size=200))
def test_random_bytes_are_an_image_or_an_error(start: bytes, data: bytes):
    is_an_image_or_an_error(start + data)


@given(st.sampled_from(sorted(FILES)), st.floats(0, 1))
def test_a_file_that_is_cut_off_is_an_image_or_an_error(kind: str, part: float):
    data = FILES[kind]
    is_an_image_or_an_error(data[: int(part * len(data))])


@given(st.sampled_from(sorted(FILES)), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8))
def test_a_file_with_wrong_bytes_is_an_image_or_an_error(kind: str, changes: list[tuple[float, int]]):
    data = bytearray(FILES[kind])
    for place, value in changes:
        data[min(int(place * len(data)), len(data) - 1)] = value
    is_an_image_or_an_error(bytes(data))


@given(st.text(max_size=50))
def test_any_text_as_a_url_is_an_error(text: str):
    for url in (text, f"data:{text}", f"data:image/png;base64,{text}"):
        with pytest.raises(ImageError):
            Image.from_url(url)
