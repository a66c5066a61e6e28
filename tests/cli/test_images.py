"""Images in the command: `--image` with a prompt, and `/image` in a chat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..support.command import TOY, call
from ..support.vision import N_TOKENS, png, write_projector

GREEDY = ("--temperature", "0", "-n", "4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    write_projector(folder / "mmproj.gguf")
    for color in ("red", "blue"):
        (folder / f"{color}.png").write_bytes(png(color))
    return folder


def prompt_tokens(folder: Path, *images: str) -> int:
    shown = [word for image in images for word in ("--image", str(folder / image))]
    result = call(*TOY, *GREEDY, "--json", "--projector", str(folder / "mmproj.gguf"), *shown, "What is this?")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["usage"]["prompt_tokens"]


def test_run_shows_images_too(folder: Path):
    options = ("--projector", str(folder / "mmproj.gguf"), "--image", str(folder / "red.png"), "--json")
    result = call("run", TOY[1], "What is this?", *GREEDY, *options)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["usage"]["prompt_tokens"] == prompt_tokens(folder, "red.png")


def test_a_prompt_with_images(folder: Path):
    assert prompt_tokens(folder, "red.png", "blue.png") == prompt_tokens(folder) + 2 * N_TOKENS


def test_an_image_in_a_chat(folder: Path, tmp_path: Path):
    lines = ["Hi.", f"/image {folder / 'red.png'}", "What is this?", f"/save {tmp_path / 'saved'}", "/reset"]
    lines += [f"/load {tmp_path / 'saved'}", "And why?", "/image missing.png"]
    options = ("--projector", str(folder / "mmproj.gguf"), "--stats")
    result = call("chat", *TOY, *GREEDY, *options, stdin="".join(f"{line}\n" for line in lines))
    assert "An image of 40 x 30 pixels is shown with the next message." in result.stderr
    assert "2 turns loaded" in result.stderr
    assert result.stderr.count("prompt tokens") == 3
    assert "cannot read the image at 'missing.png'" in result.stderr


def test_the_first_message_of_a_chat_may_have_an_image(folder: Path):
    options = ("--projector", str(folder / "mmproj.gguf"), "--stats", "--image", str(folder / "red.png"))
    with_image = call("chat", *TOY, *GREEDY, *options, stdin="What is this?\n")
    assert with_image.returncode == 0, with_image.stderr


def test_a_model_without_a_projector_says_how_to_give_one(folder: Path):
    for result in (
        call(*TOY, "--image", str(folder / "red.png"), "What is this?"),
        call("chat", *TOY, "--image", str(folder / "red.png"), stdin="What is this?\n"),
        call("chat", *TOY, stdin=f"/image {folder / 'red.png'}\n"),
    ):
        assert result.returncode == 2
        assert "reads no images without a projector: give its file with --projector" in result.stderr


def test_an_image_needs_a_chat(folder: Path):
    result = call(*TOY, "--raw", "--image", str(folder / "red.png"), "What is this?")
    assert result.returncode == 2
    assert "image cannot be used here" in result.stderr


def test_an_image_that_cannot_be_read_is_an_error(folder: Path):
    result = call(*TOY, "--image", str(folder / "mmproj.gguf"), "What is this?")
    assert result.returncode == 2
    assert "is not a PNG, JPEG, WebP, GIF or BMP file" in result.stderr
