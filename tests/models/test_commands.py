"""``cyllama pull``, ``models`` and ``rm``, as a person would use them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from cyllama.cli import main
from cyllama.models import TINY_CHAT
from cyllama.models.cache import PARTIAL
from cyllama.models.hub import find_model

from ..support.command import CTRL_C, Terminal, run
from ..support.hub_server import Hub, Repository
from ..support.split_models import write_split_model

CHUNK = constants.DOWNLOAD_CHUNK_SIZE
SIZE = 2 * CHUNK + 1000


@pytest.fixture
def large(hub: Hub) -> bytes:
    data = TINY_CHAT.read_bytes().ljust(SIZE, b"\0")
    hub.repositories["ada/large"] = Repository({"large-Q8_0.gguf": data})
    return data


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str, int]:
    """Run a command in this process; return what it prints and its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return out, err, caught.value.code


def wait_for_first_chunk(cache: Path) -> None:
    """Wait until the first piece of a download is on the disk."""
    while not [path for path in cache.rglob(f"*{PARTIAL}") if path.stat().st_size == CHUNK]:
        time.sleep(0.01)


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


def test_pull_answers_with_the_path_and_then_the_model_is_there(hub: Hub, cache: Path):
    pulled = run("pull", "ada/tiny")
    assert (pulled.returncode, pulled.stderr) == (0, "")
    assert Path(pulled.stdout.strip()).read_bytes() == TINY_CHAT.read_bytes()
    question = "What is the capital of France?"
    answer = run("-m", "ada/tiny", "--temperature", "0", question, env={"HF_HUB_OFFLINE": "1"})
    assert (answer.stdout, answer.stderr) == ("The capital of France is Paris.\n", "")
    assert run("pull", "ada/tiny:Q8_0", env={"HF_HUB_OFFLINE": "1"}).returncode == 2


def test_a_terminal_shows_how_far_a_download_is(hub: Hub, large: bytes):
    hub.stall_at = CHUNK + 5
    with Terminal("pull", "ada/large") as terminal:
        terminal.expect("large-Q8_0.gguf")
        terminal.expect("10.5/21.0 MB")
        hub.stall_at = None
        hub.go_on.set()
        terminal.expect("/snapshots/")
        assert terminal.wait() == 0


def test_ctrl_c_ends_a_download(hub: Hub, large: bytes, cache: Path):
    hub.stall_at = CHUNK + 5
    with Terminal("pull", "ada/large") as terminal:
        wait_for_first_chunk(cache)
        terminal.press(CTRL_C)
        assert terminal.wait() == 130
    assert [path.stat().st_size for path in cache.rglob(f"*{PARTIAL}")] == [CHUNK]


def test_a_download_that_was_killed_continues(hub: Hub, large: bytes, cache: Path):
    hub.stall_at = CHUNK + 5
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    first = subprocess.Popen([sys.executable, "-m", "cyllama", "pull", "ada/large"], env=environment)
    assert hub.stalled.wait(timeout=120)
    wait_for_first_chunk(cache)
    first.send_signal(signal.SIGKILL)
    first.wait()
    hub.stall_at, hub.requests = None, []
    hub.go_on.set()
    assert find_model("ada/large").read_bytes() == large
    assert [request.range for request in hub.downloads] == [f"bytes={CHUNK}-"]


def test_run_downloads_a_model_and_answers(hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str]):
    question, answer = "What is the capital of France?", "The capital of France is Paris.\n"
    assert command(capsys, "run", "ada/tiny", question, "--temperature", "0")[0] == answer
    assert list(cache.rglob("*.gguf"))


def test_pull_of_a_file_says_that_there_is_nothing_to_download(hub: Hub, capsys: pytest.CaptureFixture[str]):
    _, err, status = command(capsys, "pull", str(TINY_CHAT))
    assert (status, f"'{TINY_CHAT}' is a file on this machine: there is nothing to download" in err) == (2, True)


def test_models_shows_what_is_cached(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    parts = write_split_model(tmp_path, "other-BF16", 3)
    hub.repositories["bob/split"] = Repository({path.name: path.read_bytes() for path in parts})
    hub.repositories["bob/split"].files["small.gguf"] = b"GGUF, and nothing else"
    for name in ("ada/tiny", "ada/tiny:Q8_0", "bob/split", "hf:bob/split/small.gguf"):
        find_model(name)
    out, err, code = command(capsys, "models")
    assert (err, code) == ("", 0)
    assert rows(out) == [
        ["name", "size", "context", "quantization"],
        ["ada/tiny:Q8_0", "3.2", "MB", "2,048", "Q8_0"],
        ["ada/tiny:Q4_K_M", "3.2", "MB", "2,048", "Q4_K_M"],
        ["bob/split:BF16", "3.2", "MB", "2,048", "BF16"],
        ["hf:bob/split/small.gguf", "0.0", "MB", "damaged"],
    ]


def test_models_shows_names_that_can_be_copied(hub: Hub, capsys: pytest.CaptureFixture[str]):
    name = f"ada/{'a-long-name-' * 7}GGUF"
    hub.repositories[name] = Repository({f"{'a-long-name-' * 7}UD-Q4_K_XL.gguf": TINY_CHAT.read_bytes()})
    find_model(name)
    out, _, _ = command(capsys, "models")
    assert rows(out)[1][0] == f"{name}:Q4_K_XL"


def test_an_empty_cache_says_how_to_fill_it(hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str]):
    assert command(capsys, "models") == ("", f"there is no model in {cache}: `cyllama pull NAME` downloads one\n", 0)


def test_rm_deletes_one_quantization(hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str]):
    kept, gone = find_model("ada/tiny:Q8_0"), find_model("ada/tiny:Q4_K_M")
    blob = gone.resolve()
    assert command(capsys, "rm", "ada/tiny:Q4_K_M") == ("", "deleted hf:ada/tiny/tiny-q4_k_m.gguf, 3.2 MB\n", 0)
    assert (gone.is_symlink(), blob.exists(), kept.exists()) == (False, False, True)


def test_rm_deletes_a_repository(hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str]):
    find_model("ada/tiny:Q8_0")
    find_model("ada/tiny:Q4_K_M")
    out, err, code = command(capsys, "rm", "ada/tiny")
    assert (out, len(err.splitlines()), code) == ("", 2, 0)
    assert not (cache / "models--ada--tiny").exists()


def test_rm_keeps_what_others_need(hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str]):
    hub.repositories["ada/tiny"].files["copy-F16.gguf"] = hub.repositories["ada/tiny"].files["tiny-q4_k_m.gguf"]
    model, copy = find_model("ada/tiny"), find_model("ada/tiny:F16")
    (model.parent / "config.json").write_text("{}")
    assert command(capsys, "rm", "ada/tiny:Q4_K_M")[2] == 0
    assert copy.read_bytes() == TINY_CHAT.read_bytes()
    assert command(capsys, "rm", "ada/tiny")[2] == 0
    assert [path.name for path in model.parent.iterdir()] == ["config.json"]


def test_rm_deletes_what_is_not_complete(hub: Hub, large: bytes, cache: Path, capsys: pytest.CaptureFixture[str]):
    blobs = cache / "models--ada--large/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'0' * 64}{PARTIAL}").write_bytes(large[:CHUNK])
    deleted = "deleted what was downloaded of ada/large, which was not complete\n"
    assert command(capsys, "rm", "ada/large") == ("", deleted, 0)
    assert not blobs.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["rm", "ada/tiny:Q5_0"],
            "there is no model 'ada/tiny:Q5_0' in the cache at '{cache}': of 'ada/tiny', there is ",
        ),
        (["rm", "bob/other"], "there is no model 'bob/other' in the cache at '{cache}'"),
        (["rm", "model.gguf"], "'model.gguf' does not name a model in the cache: names are owner/repo, "),
        (
            ["pull", "model.gguf"],
            "there is no model file at 'model.gguf', and models on the hub are named 'owner/repo'",
        ),
        (["pull", "ada/tiny", "--revision", "old"], "'ada/tiny' has no revision 'old'"),
    ],
)
def test_errors_say_what_there_is(
    hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    find_model("ada/tiny")
    out, err, code = command(capsys, *arguments)
    assert (out, code) == ("", 2)
    assert message.format(cache=cache) in err
