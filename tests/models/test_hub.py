"""Models by name, from a hub on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import pytest
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

from cyllama import (
    LLM,
    ConfigError,
    ConfigTypeError,
    CyllamaError,
    ModelAccessError,
    ModelDownloadError,
    ModelNotFoundError,
)
from cyllama.models import TINY_CHAT, resolve_model_path
from cyllama.models.cache import PARTIAL, cached_models
from cyllama.models.hub import find_file, find_model
from cyllama.models.place import Place
from langchain_cyllama import ChatCyllama, CyllamaEmbeddings, CyllamaLLM, CyllamaReranker

from ..support.hub_server import TOKEN, Hub, Repository
from ..support.random_models import write_random_bert
from ..support.split_models import write_split_model

OPTIONS: dict[str, Any] = {"temperature": 0, "n_threads": 1}
SIZE = 25_000_000  # of a model that is downloaded in several pieces
CHUNK = constants.DOWNLOAD_CHUNK_SIZE


@pytest.fixture
def large(hub: Hub) -> bytes:
    """The embedded model with zeros behind it, in the repository "ada/large"."""
    data = TINY_CHAT.read_bytes().ljust(SIZE, b"\0")
    hub.repositories["ada/large"] = Repository({"large-Q8_0.gguf": data})
    return data


def partial_files(cache: Path) -> list[Path]:
    return list(cache.rglob(f"*{PARTIAL}"))


# --- names


def test_a_repository_is_a_model(hub: Hub, cache: Path):
    with LLM("ada/tiny", **OPTIONS) as llm:
        answer = llm.chat([{"role": "user", "content": "What is the capital of France?"}], max_tokens=16)
    assert answer.text == "The capital of France is Paris."
    assert Path(llm.model_path).name == "tiny-q4_k_m.gguf"
    assert Path(llm.model_path).is_relative_to(cache)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ada/tiny:Q8_0", "tiny-Q8_0.gguf"),
        ("ada/tiny:q4_k_m", "tiny-q4_k_m.gguf"),
        ("hf:ada/tiny", "tiny-q4_k_m.gguf"),
        ("hf:ada/tiny/tiny-Q8_0.gguf", "tiny-Q8_0.gguf"),
    ],
)
def test_a_name_chooses_a_file(hub: Hub, name: str, file: str):
    assert resolve_model_path(name).name == file


def test_from_pretrained_takes_a_pattern_and_all_options(hub: Hub, tmp_path: Path):
    llm = LLM.from_pretrained("ada/tiny", "*Q8_0.gguf", cache_dir=tmp_path / "mine", n_parallel=2, **OPTIONS)
    assert Path(llm.model_path).name == "tiny-Q8_0.gguf"
    assert Path(llm.model_path).is_relative_to(tmp_path / "mine")
    assert llm.model_config.n_parallel == 2


def test_a_revision_is_a_branch_or_a_commit(hub: Hub):
    commit = hub.repositories["ada/tiny"].commit
    assert find_file("ada/tiny", None, Place(revision=commit)) == find_file("ada/tiny", None, Place(revision="main"))
    with pytest.raises(ModelNotFoundError, match="'ada/tiny' has no revision 'old': give a branch, a tag or a commit"):
        LLM.from_pretrained("ada/tiny", revision="old")


def test_a_path_that_exists_wins(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("ada").mkdir()
    Path("ada/tiny").write_bytes(TINY_CHAT.read_bytes())
    assert LLM("ada/tiny", **OPTIONS).model_path == str(tmp_path / "ada/tiny")
    assert hub.requests == []


def test_a_path_object_is_never_a_name(hub: Hub):
    with pytest.raises(ModelNotFoundError, match=r"^there is no model file at 'ada/tiny'$"):
        LLM(Path("ada/tiny"))
    assert hub.requests == []


def test_progress_of_loading_is_still_reported(hub: Hub):
    seen: list[float] = []
    LLM("ada/tiny", progress_callback=seen.append, **OPTIONS)
    assert seen[-1] == 1.0


@pytest.mark.parametrize("make", [ChatCyllama, CyllamaLLM, CyllamaEmbeddings])
def test_langchain_takes_names(hub: Hub, make: Callable[..., ChatCyllama]):
    named, other = make(model="ada/tiny", n_threads=1), make(model_path="ada/tiny:Q4_K_M", n_threads=1)
    assert named.client is other.client, "objects on one file share one model"
    assert Path(named.client.model_path).name == "tiny-q4_k_m.gguf"
    assert named.model == "ada/tiny", "a name stays a name when the object is serialized"


def test_a_reranker_takes_names(hub: Hub, tmp_path: Path):
    data = write_random_bert(tmp_path / "rank.gguf", pooling=gguf.PoolingType.RANK).read_bytes()
    hub.repositories["ada/rank"] = Repository({"rank-F32.gguf": data})
    assert len(CyllamaReranker(model="ada/rank", n_threads=1).client.rerank("Who?", ["A fox.", "An owl."])) == 2


@pytest.mark.parametrize(
    ("repo_id", "filename", "error", "message"),
    [
        (7, None, ConfigTypeError, "repo_id is a str, not int: 7"),
        ("ada/tiny", 7, ConfigTypeError, "filename is a str, not int: 7"),
        ("tiny", None, ConfigError, "repo_id is 'owner/repo' or 'owner/repo:QUANTIZATION', not 'tiny'"),
        ("ada/tiny:Q8_0", "*.gguf", ConfigError, "both choose a file: leave one of them out"),
        ("ada/tiny", "tiny*", ConfigError, "'tiny*' fits 2 models of 'ada/tiny': tiny-Q8_0.gguf, tiny-q4_k_m.gguf"),
        ("ada/tiny", "*Q5*", ModelNotFoundError, "'ada/tiny' has no file '*Q5*': there is tiny-Q8_0.gguf, tiny-q4_k_m"),
    ],
)
def test_wrong_arguments_are_explained(hub: Hub, repo_id: str, filename: str, error: type[CyllamaError], message: str):
    with pytest.raises(error, match=re.escape(message)):
        LLM.from_pretrained(repo_id, filename)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_paralel": 2}, ConfigTypeError, "did you mean 'n_parallel'?"),
        ({"revision": 7}, ConfigTypeError, "revision is a str or None, not int"),
        ({"cache_dir": 7}, ConfigTypeError, "cache_dir is a str or None, not int"),
        ({"token": 7}, ConfigTypeError, "token is a str or None, not int"),
        ({"token": "secret\n"}, ConfigError, "token has a line break or another character that no token has"),
    ],
)
def test_nothing_is_downloaded_for_wrong_options(
    hub: Hub, options: dict[str, Any], error: type[CyllamaError], message: str
):
    with pytest.raises(error, match=re.escape(message)) as caught:
        LLM.from_pretrained("ada/tiny", **options)
    assert "secret" not in str(caught.value)
    assert hub.requests == []


# --- what there is


def test_a_missing_repository_is_named(hub: Hub):
    with pytest.raises(ModelNotFoundError) as caught:
        LLM("ada/huge")
    assert str(caught.value) == (
        "there is no model file at 'ada/huge', and the hub shows no repository 'ada/huge': check its name; if it is "
        "private, give token=, set HF_TOKEN, or log in with `hf auth login`"
    )


def test_an_unknown_quantization_lists_those_that_exist(hub: Hub):
    with pytest.raises(
        ModelNotFoundError, match=r"no quantization 'Q5_0': there is Q8_0, Q4_K_M; take one as 'ada/tiny:Q8_0'"
    ):
        LLM("ada/tiny:Q5_0")
    hub.repositories["ada/tiny"] = Repository({"chat.gguf": b""})
    with pytest.raises(ModelNotFoundError, match=r"'Q5_0': there is chat.gguf; take one as 'hf:ada/tiny/chat.gguf'"):
        LLM("ada/tiny:Q5_0")


def test_a_repository_without_gguf_says_what_it_has(hub: Hub):
    hub.repositories["ada/tiny"] = Repository({"README.md": b"", "model.safetensors": b"", "mmproj-a.gguf": b""})
    with pytest.raises(ModelNotFoundError, match=r"has no GGUF model, but .gguf, .md, .safetensors: .*'tiny-GGUF'"):
        LLM("ada/tiny")


@pytest.mark.parametrize(
    "name", ["hf:ada", "hf:ada/tiny/model.bin", "hf:ada/tiny/..", "tiny:135m", "http://127.0.0.1/ada/tiny/model.gguf"]
)
def test_what_is_not_a_name_says_how_they_look(hub: Hub, name: str):
    with pytest.raises(ModelNotFoundError, match="models on the hub are named 'owner/repo', 'owner/repo:QUANTIZATION'"):
        LLM(name)


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("https://huggingface.co/ada/tiny", "ada/tiny"),
        ("https://huggingface.co/ada/tiny/tree/main", "ada/tiny"),
        ("https://huggingface.co/ada/tiny/blob/main/tiny-Q8_0.gguf", "hf:ada/tiny/tiny-Q8_0.gguf"),
        ("http://hf.co/ada/tiny/resolve/main/a/tiny.gguf?download=true", "hf:ada/tiny/a/tiny.gguf"),
    ],
)
def test_an_address_of_the_hub_says_which_name_it_stands_for(hub: Hub, address: str, meant: str):
    with pytest.raises(ModelNotFoundError, match=re.escape(f"{address!r}") + f".*: did you mean '{meant}'"):
        LLM(address)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["ada/ti--ny", "ada/tiny.git"])
def test_a_repository_that_cannot_be_is_not_found(hub: Hub, name: str):
    with pytest.raises(ModelNotFoundError, match="cannot be a repository on the hub"):
        LLM(name)


@pytest.mark.parametrize(("name", "error"), [("a" * 5000, ModelAccessError), ("ada/" + "a" * 5000, ModelNotFoundError)])
def test_a_text_that_is_too_long_for_a_path_is_refused(hub: Hub, name: str, error: type[Exception]):
    with pytest.raises(error, match="aaa"):
        LLM(name)


# --- access


def test_a_private_repository_needs_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    hub.repositories["ada/tiny"].private = True
    with pytest.raises(ModelNotFoundError, match="if it is private, give token=, set HF_TOKEN"):
        LLM("ada/tiny")
    with pytest.raises(ModelAccessError, match=r"refuses access to 'ada/tiny' .*401.*: use a token that may read it"):
        LLM.from_pretrained("ada/tiny", token="wrong")
    assert find_file("ada/tiny", None, Place(token=TOKEN)).exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert find_model("ada/tiny:Q8_0").exists()


def test_a_gated_repository_says_how_to_get_in(hub: Hub):
    hub.repositories["ada/tiny"].gated = True
    with pytest.raises(ModelAccessError, match="for users whom its owner has given access: ask for it on its page"):
        LLM("ada/tiny")
    assert find_file("ada/tiny", None, Place(token=TOKEN)).exists()


# --- downloads


def test_the_cache_is_that_of_every_other_tool(hub: Hub, cache: Path):
    path = find_model("ada/tiny")
    assert try_to_load_from_cache("ada/tiny", "tiny-q4_k_m.gguf") == str(path)
    assert path.read_bytes() == TINY_CHAT.read_bytes()
    assert (cache / "models--ada--tiny/refs/main").read_text() == hub.repositories["ada/tiny"].commit


def test_a_model_is_downloaded_once(hub: Hub):
    path = find_model("ada/tiny")
    assert find_model("ada/tiny:Q4_K_M") == path
    hub.repositories["ada/tiny"].commit = "2" * 40
    assert find_model("ada/tiny").parent.name == "2" * 40, "a new commit with the same file"
    assert len(hub.downloads) == 1


def test_what_another_tool_has_downloaded_is_used(hub: Hub):
    path = hf_hub_download("ada/tiny", "tiny-Q8_0.gguf")
    assert str(find_model("ada/tiny:Q8_0")) == path
    assert len(hub.downloads) == 1


def test_threads_that_ask_for_one_model_download_it_once(hub: Hub):
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(find_model, ["ada/tiny"] * 4))) == 1
    assert len(hub.downloads) == 1


def test_a_broken_connection_continues_where_it_ended(hub: Hub, large: bytes):
    hub.broken_at = [CHUNK + 5]
    assert find_model("ada/large").read_bytes() == large
    assert [request.range for request in hub.downloads] == [None, f"bytes={CHUNK}-"]


def test_a_download_that_fails_continues_at_the_next_try(hub: Hub, cache: Path, large: bytes, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the tries of huggingface_hub
    hub.broken_at = [CHUNK + 5, *[0] * 20]
    with pytest.raises(ModelDownloadError) as caught:
        LLM("ada/large")
    assert f"'large-Q8_0.gguf' from 'ada/large' ended after {CHUNK:,} of {SIZE:,} bytes" in str(caught.value)
    assert [path.stat().st_size for path in partial_files(cache)] == [CHUNK]
    hub.broken_at, hub.requests = [], []
    assert find_model("ada/large").read_bytes() == large
    assert [request.range for request in hub.downloads] == [f"bytes={CHUNK}-"]
    assert partial_files(cache) == []


def test_a_partial_file_that_is_too_long_is_not_used(hub: Hub, cache: Path):
    find_model("ada/tiny")
    blob = next((cache / "models--ada--tiny/blobs").iterdir())
    partial = blob.with_name(blob.name + PARTIAL)
    blob.rename(partial)
    with partial.open("ab") as file:
        file.write(b"more")
    assert find_model("ada/tiny").read_bytes() == TINY_CHAT.read_bytes()


def test_a_wrong_checksum_is_refused_before_loading(hub: Hub, cache: Path):
    hub.repositories["ada/tiny"].checksums["tiny-q4_k_m.gguf"] = "0" * 64
    with pytest.raises(ModelDownloadError, match=r"is damaged: its SHA256 is [0-9a-f]{64}, and 0{64} on the hub"):
        LLM("ada/tiny")
    assert partial_files(cache) == []
    assert cached_models(cache) == []
    hub.repositories["ada/tiny"].checksums = {}
    assert find_model("ada/tiny").exists(), "the next try downloads it again"


def test_a_file_that_git_stores_has_a_checksum_too(hub: Hub):
    hub.repositories["ada/tiny"] = Repository({"small.gguf": TINY_CHAT.read_bytes()})
    assert find_model("ada/tiny").exists()
    hub.repositories["ada/tiny"] = Repository(
        {"small.gguf": b"GGUF"}, checksums={"small.gguf": "0" * 40}, commit="2" * 40
    )
    with pytest.raises(ModelDownloadError, match=r"is damaged: its SHA1 is [0-9a-f]{40}, and 0{40} on the hub"):
        LLM("ada/tiny")


@pytest.mark.parametrize("checksum", ["", "../../../../etc/evil", "0" * 63])
def test_a_file_without_a_checksum_is_not_downloaded(hub: Hub, checksum: str):
    hub.repositories["ada/tiny"].checksums["tiny-q4_k_m.gguf"] = checksum
    with pytest.raises(ModelDownloadError, match=r"the hub has no checksum of 'tiny-q4_k_m.gguf' in 'ada/tiny'"):
        LLM("ada/tiny")
    assert hub.downloads == []


def test_a_cached_file_of_another_size_is_refused(hub: Hub):
    path = find_model("ada/tiny")
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ModelDownloadError, match=r"is damaged: .* `cyllama rm hf:ada/tiny/tiny-q4_k_m.gguf`"):
        LLM("ada/tiny")


def test_a_disk_without_space_is_seen_before_downloading(hub: Hub, cache: Path):
    hub.repositories["ada/tiny"].sizes["tiny-q4_k_m.gguf"] = 10**18
    with pytest.raises(ModelDownloadError) as caught:
        LLM("ada/tiny")
    assert re.search(
        r"has too little space for 'ada/tiny': 1,000,000,000.0 GB are to be down.*HF_HOME", str(caught.value)
    )
    assert hub.downloads == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a file that is a full disk")
def test_a_disk_that_gets_full_is_explained(hub: Hub, cache: Path):
    repository = hub.repositories["ada/tiny"]
    blobs = cache / "models--ada--tiny/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{repository.checksum('tiny-q4_k_m.gguf')}{PARTIAL}").symlink_to("/dev/full")
    with pytest.raises(
        ModelDownloadError, match=r"too little space for 'ada/tiny': No space left on device, and .* GB"
    ):
        LLM("ada/tiny")


def test_a_file_that_is_too_large_for_http_says_what_to_install(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 1_000_000)
    with pytest.raises(ModelDownloadError, match=r"cannot download from 'ada/tiny': .* Install `hf_xet`"):
        LLM("ada/tiny")


@pytest.mark.parametrize("status", [429, 500])
def test_a_hub_that_does_not_answer_now_is_done_without(hub: Hub, status: int):
    path = find_model("ada/tiny")
    hub.refuses = status
    assert find_model("ada/tiny") == path
    with pytest.raises(
        ModelDownloadError, match=rf"the hub at http://127.0.0.1:\d+ does not answer now .*{status}.*not in the cache"
    ):
        LLM("ada/tiny:Q8_0")


def test_a_download_that_the_hub_refuses_says_so(hub: Hub):
    hub.refuses_downloads = 410
    with pytest.raises(ModelDownloadError, match=r"the hub does not serve 'ada/tiny' .*410.*try again later"):
        LLM("ada/tiny")


def test_what_is_not_a_hub_is_named(hub: Hub):
    hub.not_a_hub = True
    with pytest.raises(ModelDownloadError, match=r"what answers at http://127.0.0.1:\d+ is not a hub"):
        LLM("ada/tiny")


def test_a_cache_that_can_only_be_read_is_used(hub: Hub, cache: Path):
    path = find_model("ada/tiny")
    shutil.rmtree(cache / "models--ada--tiny/refs")
    (cache / "models--ada--tiny/refs").write_text("where no folder can be")
    assert find_model("ada/tiny") == path


def test_a_cache_that_cannot_be_written_is_named(hub: Hub, cache: Path):
    cache.parent.mkdir()
    cache.write_text("where no folder can be")
    with pytest.raises(
        ModelDownloadError,
        match=rf"from 'ada/tiny' into the cache at '{cache}': .*; HF_HOME or cache_dir names another folder",
    ):
        LLM("ada/tiny")


# --- split models


@pytest.fixture
def split(hub: Hub, tmp_path: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in write_split_model(tmp_path, "tiny-Q4_K_M", 3)}
    hub.repositories["ada/split"] = Repository(files)
    return files


@pytest.mark.parametrize("name", ["ada/split", "hf:ada/split/tiny-Q4_K_M-00002-of-00003.gguf"])
def test_all_parts_of_a_model_are_downloaded(hub: Hub, cache: Path, split: dict[str, bytes], name: str):
    llm = LLM(name, **OPTIONS)
    assert Path(llm.model_path).name == "tiny-Q4_K_M-00001-of-00003.gguf"
    [model] = cached_models(cache)
    assert [path.name for path in model.paths] == list(split)
    assert model.size == sum(map(len, split.values()))


def test_a_part_that_the_repository_lacks_is_named(hub: Hub, split: dict[str, bytes]):
    del split["tiny-Q4_K_M-00002-of-00003.gguf"]
    with pytest.raises(ModelNotFoundError, match="has 3 parts, and the repository has no tiny-Q4_K_M-00002-of-00003"):
        LLM("ada/split")


# --- without a network


def test_offline_the_cache_is_used(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch):
    path = find_model("ada/tiny")
    hub.requests = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("ada/tiny", "ada/tiny:Q4_K_M", "hf:ada/tiny/tiny-q4_k_m.gguf"):
        assert find_model(name) == path
    with pytest.raises(ModelNotFoundError) as caught:
        LLM("hf:ada/tiny:Q8_0")
    assert str(caught.value) == (
        f"'ada/tiny:Q8_0' is not in the cache at '{cache}', and local_files_only or HF_HUB_OFFLINE forbids to download "
        "it; of this repository, there is Q4_K_M: download it once with a network, as `cyllama pull ada/tiny:Q8_0` does"
    )
    assert hub.requests == []


def test_local_files_only_downloads_nothing(hub: Hub):
    with pytest.raises(ModelNotFoundError, match="is not in the cache"):
        LLM.from_pretrained("ada/tiny", local_files_only=True)
    path = find_model("ada/tiny")
    hub.requests = []
    assert find_file("ada/tiny", "*q4*", Place(local_files_only=True)) == path
    assert hub.requests == []


def test_without_a_network_the_cache_is_used(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    path = find_model("ada/tiny")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert find_model("ada/tiny") == path
    assert "the hub at http://127.0.0.1:9 cannot be reached (ConnectError" in caplog.text
    with pytest.raises(
        ModelDownloadError,
        match=r"the hub at http://127.0.0.1:9 cannot be reached .*, and 'ada/tiny:Q8_0' is not in the cache",
    ):
        LLM("ada/tiny:Q8_0")


def test_an_older_commit_is_found_without_a_network(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    path = find_model("ada/tiny")
    hub.repositories["ada/tiny"].commit = "2" * 40
    other = find_model("ada/tiny:Q8_0")
    assert other.parent != path.parent
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_model("ada/tiny:Q4_K_M") == path


def test_without_the_library_the_error_says_what_to_install(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelNotFoundError) as caught:
        LLM("ada/tiny")
    assert str(caught.value) == (
        "there is no model file at 'ada/tiny', and models are found by name with huggingface_hub, which is missing: "
        "pip install 'huggingface_hub>=1.2,<3'"
    )


def test_the_library_is_imported_for_names_only():
    program = "import sys, cyllama; cyllama.LLM(); print(sys.modules.keys() & {'huggingface_hub', 'rich'})"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert ran.stdout == "set()\n"
