"""Loading: what is in a file, what stops a load, and every file that is not a model."""

from __future__ import annotations

import os
import random
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from cyllama.llama.llama_cpp import GGMLType, LlamaContext, LlamaLoadMode, LlamaModel, LlamaModelParams

from ..support.contexts import make_params
from ..support.random_models import finish, write_one_layer, write_random_bert, write_random_model


def params(**fields: Any) -> LlamaModelParams:
    result = LlamaModelParams()
    for name, value in fields.items():
        setattr(result, name, value)
    return result


def test_a_model_says_what_it_is(model: LlamaModel, tiny_chat: Path):
    assert model.path == str(tiny_chat)
    assert model.n_params > 2_000_000
    assert model.size < tiny_chat.stat().st_size
    assert model.n_ctx_train == 2048
    assert model.ftype == "Q8_0"
    assert model.has_decoder
    assert not model.has_encoder
    assert model.metadata["general.architecture"] == "llama"
    assert (model.n_embd, model.n_layer, model.n_head) == (
        int(model.metadata["llama.embedding_length"]),
        int(model.metadata["llama.block_count"]),
        int(model.metadata["llama.attention.head_count"]),
    )
    assert model.chat_template() == model.metadata["tokenizer.chat_template"]
    assert model.chat_template("no such name") is None


def test_close_frees_at_once_and_only_once(tiny_chat: Path):
    model = LlamaModel(tiny_chat)
    vocab = model.vocab
    assert "llama" in repr(model)
    model.close()
    model.close()
    assert model.closed
    assert repr(model) == "<LlamaModel (closed)>"
    for use in (
        lambda: model.n_params,
        lambda: model.metadata,
        lambda: vocab.tokenize("a"),
        lambda: LlamaContext(model),
    ):
        with pytest.raises(RuntimeError, match="the model is closed"):
            use()


def test_a_with_block_closes(tiny_chat: Path):
    with pytest.raises(KeyError), LlamaModel(tiny_chat) as model:
        raise KeyError
    assert model.closed


@pytest.mark.parametrize("as_type", [str, os.fsencode, Path])
def test_a_path_can_be_a_str_bytes_or_a_path(as_type: Callable[[Path], Any], tiny_chat: Path):
    LlamaModel(as_type(tiny_chat)).close()


def test_a_path_need_not_be_utf8(tiny_chat: Path, tmp_path: Path):
    path = os.fsencode(tmp_path) + b"/\xff\xe4.gguf"
    Path(os.fsdecode(path)).symlink_to(tiny_chat)
    with LlamaModel(os.fsdecode(path)) as model:
        assert os.fsencode(model.path) == path
    broken = os.fsencode(tmp_path) + b"/\xff\xe5.gguf"
    Path(os.fsdecode(broken)).write_bytes(b"GGUF and no more")
    with pytest.raises(RuntimeError, match="cannot load"):
        LlamaModel(os.fsdecode(broken))


def test_what_cannot_be_opened_raises_as_open_does(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        LlamaModel(tmp_path / "missing.gguf")
    with pytest.raises(FileNotFoundError):
        LlamaModel("")
    with pytest.raises(IsADirectoryError):
        LlamaModel(tmp_path)
    with pytest.raises(NotADirectoryError):
        LlamaModel(Path(__file__) / "model.gguf")
    with pytest.raises(ValueError, match="null"):
        LlamaModel("model\0.gguf")
    with pytest.raises(TypeError):
        LlamaModel(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        LlamaModel(tmp_path, 5)  # type: ignore[arg-type]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_raises_as_open_does(tmp_path: Path):
    path = tmp_path / "secret.gguf"
    path.touch(mode=0)
    with pytest.raises(PermissionError):
        LlamaModel(path)


def test_a_pipe_or_a_device_is_refused_without_waiting_for_it(tmp_path: Path):
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/null", "/dev/zero"):
        with pytest.raises(OSError, match="Invalid argument"):
            LlamaModel(path)


@pytest.mark.parametrize(("content", "why"), [(b"", "is empty"), (b"GG", "GGUF"), (b"<html>not found</html>", "GGUF")])
def test_a_file_that_is_not_gguf_is_named(content: bytes, why: str, tmp_path: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=why):
        LlamaModel(path)


def test_a_download_that_broke_off_is_refused_wherever_it_did(tiny_chat: Path, tmp_path: Path):
    data = tiny_chat.read_bytes()
    header = gguf.GGUFReader(tiny_chat).data_offset
    ends = [header * i // 20 for i in range(1, 20)] + [header + (len(data) - header) * i // 10 for i in range(10)]
    path = tmp_path / "partial.gguf"
    for end in [*ends, len(data) - 1]:
        path.write_bytes(data[:end])
        with pytest.raises(RuntimeError, match="cannot load"):
            LlamaModel(path)


def test_noise_is_refused(tmp_path: Path):
    rng = random.Random(1)
    path = tmp_path / "noise.gguf"
    for _ in range(50):
        path.write_bytes(b"GGUF" + struct.pack("<I", 3) + rng.randbytes(500))
        with pytest.raises(RuntimeError, match="cannot load"):
            LlamaModel(path)


def test_flipped_bits_of_the_header_never_take_the_process_along(
    tiny_chat: Path, tmp_path: Path, in_process: Callable[..., str]
):
    code = f"""
import random
logging.getLogger("cyllama.llama").setLevel(logging.CRITICAL)
data, rng, refused = bytearray(TINY_CHAT.read_bytes()), random.Random(7), 0
for _ in range(100):
    damaged = data[:]
    for _ in range(rng.choice([1, 1, 4])):
        damaged[rng.randrange({gguf.GGUFReader(tiny_chat).data_offset})] ^= 1 << rng.randrange(8)
    with open({str(tmp_path / "flipped.gguf")!r}, "wb") as file:
        file.write(damaged)
    try:
        with LlamaModel(file.name) as model:
            model.metadata, model.n_head, model.vocab.tokenize("Hello")
    except (RuntimeError, ValueError):
        refused += 1
print(refused)
"""
    assert 5 < int(in_process(code)) < 100


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", 0),
        ("llama.block_count", 100_000),
        ("llama.attention.layer_norm_rms_epsilon", -1.0),
        ("llama.attention.layer_norm_rms_epsilon", float("nan")),
        ("llama.expert_count", 5),
        ("llama.expert_count", 5000),
    ],
)
def test_numbers_that_llama_cpp_would_abort_on_are_refused(
    key: str, value: float, tiny_chat: Path, in_process: Callable[..., str]
):
    shown = "float('nan')" if value != value else repr(value)
    assert "damaged or not supported: " in in_process(f"print(raised(lambda: load(kv_overrides={{{key!r}: {shown}}})))")


def test_a_vocabulary_with_a_token_twice_is_refused(tiny_chat: Path, tmp_path: Path, in_process: Callable[..., str]):
    path = tmp_path / "twice.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "a"])
    writer.add_token_merges(["a b"])
    finish(writer, path)
    assert "token 2 of its vocabulary occurs twice" in in_process(f"print(raised(LlamaModel, {str(path)!r}))")


def test_text_of_the_file_may_be_any_bytes(tmp_path: Path, tiny_chat: Path):
    data = tiny_chat.read_bytes()
    name = gguf.GGUFReader(tiny_chat).fields["general.name"]
    length = len(name.parts[-1])
    path = tmp_path / "name.gguf"
    start = int(name.offset) + 8 + len("general.name") + 4 + 8
    path.write_bytes(data[:start] + b"\xff\0" + data[start + 2 :])
    with LlamaModel(path) as model:
        assert model.metadata["general.name"].startswith("\ufffd")
        assert len(model.metadata["general.name"]) <= length


def test_the_vocabulary_alone(tiny_chat: Path, in_process: Callable[..., str]):
    with LlamaModel(tiny_chat, params(vocab_only=True)) as model:
        assert model.vocab.tokenize("Hello") == LlamaModel(tiny_chat).vocab.tokenize("Hello")
        assert (model.n_head, model.n_head_kv, model.n_layer) == (0, 0, 0)
        with pytest.raises(RuntimeError, match="without its weights"):
            LlamaContext(model)
    with LlamaModel(tiny_chat, params(no_alloc=True, load_mode=LlamaLoadMode.NONE)) as model:
        assert model.n_params > 0
        with pytest.raises(RuntimeError, match="without its weights"):
            LlamaContext(model)
    assert "no_alloc loads nothing" in in_process("print(raised(lambda: load(no_alloc=True)))")


def test_the_progress_is_reported_and_can_stop_the_load(tiny_chat: Path):
    seen: list[float] = []
    LlamaModel(tiny_chat, params(progress_callback=seen.append)).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    with pytest.raises(RuntimeError, match="stopped by progress_callback"):
        LlamaModel(tiny_chat, params(progress_callback=lambda progress: progress < 0.3))


@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_what_the_progress_callback_raises_comes_out_of_the_load(error: BaseException, tiny_chat: Path):
    def fail(progress: float) -> bool:
        raise error

    with pytest.raises(type(error)) as caught:
        LlamaModel(tiny_chat, params(progress_callback=fail))
    assert caught.value is error


def test_a_progress_callback_that_cannot_be_called(tiny_chat: Path):
    with pytest.raises(TypeError, match="not callable"):
        LlamaModel(tiny_chat, params(progress_callback=7))


def test_ctrl_c_stops_a_load(in_process: Callable[..., str]):
    code = """
import signal
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    while True:
        load().close()
except KeyboardInterrupt:
    print("stopped")
"""
    assert in_process(code) == "stopped\n"


def test_overrides_replace_metadata(tiny_chat: Path):
    with LlamaModel(tiny_chat, params(kv_overrides={"llama.context_length": 77})) as model:
        assert model.n_ctx_train == 77
    with pytest.raises(ValueError, match="longer than 127 bytes"):
        LlamaModel(tiny_chat, params(kv_overrides={"x" * 128: 1}))
    with pytest.raises(ValueError, match="longer than 127 bytes"):
        LlamaModel(tiny_chat, params(kv_overrides={"x": "y" * 128}))


def test_devices_and_buffers_that_do_not_exist(tiny_chat: Path, in_process: Callable[..., str]):
    with pytest.raises(ValueError, match='no device "gpu9"'):
        LlamaModel(tiny_chat, params(devices=["gpu9"]))
    with pytest.raises(ValueError, match="no buffer type"):
        LlamaModel(tiny_chat, params(tensor_buft_overrides=[(".*", "HBM9")]))
    with pytest.raises(ValueError, match="at most"):
        LlamaModel(tiny_chat, params(tensor_split=[1.0] * 100))
    LlamaModel(tiny_chat, params(tensor_buft_overrides=[("blk", "CPU")])).close()
    code = 'print(raised(lambda: load(tensor_buft_overrides=[("(" * 200_000, "CPU")])))'
    assert "longer than 1024 bytes" in in_process(code)


def test_enumerations_refuse_what_they_do_not_contain():
    with pytest.raises(TypeError):
        params(split_mode=99)
    with pytest.raises(TypeError):
        params(load_mode=-5)


def test_every_field_is_kept():
    values: dict[str, Any] = {
        "devices": ["CPU"],
        "tensor_buft_overrides": [("blk", "CPU")],
        "n_gpu_layers": 3,
        "load_mode": LlamaLoadMode.MMAP,
        "main_gpu": 1,
        "tensor_split": [0.5, 0.25],
        "kv_overrides": {"a": True, "b": 2, "c": 0.5, "d": "e"},
        "vocab_only": True,
        "check_tensors": True,
        "use_extra_bufts": False,
        "no_host": True,
        "no_alloc": True,
        "load_mtp": True,
    }
    kept = params(**values)
    assert {name: getattr(kept, name) for name in values} == values


def test_loading_again_and_again_does_not_grow(tiny_chat: Path, in_process: Callable[..., str]):
    code = """
import ctypes, resource
def rss():  # of what is in use: malloc keeps free memory back, more or less of it by chance
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
def once():
    with load() as model, LlamaContext(model, params()) as context:
        context.decode(batch_of())
        LlamaSampler.chain([LlamaSampler.top_k(5), LlamaSampler.dist(1)]).sample(context)
for _ in range(20):
    once()
before = rss()
for _ in range(60):
    once()
print(rss() - before)
"""
    if sys.platform == "linux":
        assert int(in_process(code)) < 4_000_000  # one leaked context alone is 60 times 2 MB


def test_the_size_of_a_kv_cache_is_told_before_it_is_made(model: LlamaModel):
    # 4 layers, 2 key-value heads of width 32, keys and values of 2 bytes each
    assert model.kv_cache_bytes(make_params(n_ctx=1024)) == {"CPU": 1024 * 4 * 2 * (32 + 32) * 2}
    q8_0 = make_params(n_ctx=1024, type_k=GGMLType.Q8_0)
    assert model.kv_cache_bytes(q8_0) == {"CPU": 1024 * 4 * 2 * (34 + 64)}


def test_the_size_of_a_kv_cache_is_never_negative(model: LlamaModel):
    assert model.kv_cache_bytes(make_params(n_ctx=2**32 - 1)) == {"CPU": 2**32 * 4 * 2 * (32 + 32) * 2}


def test_a_check_of_llama_cpp_that_fails_is_an_exception(in_process: Callable[..., str]):
    """Nothing here looks at groups of experts: it stands for every check that is not known here."""
    code = """
groups = {"llama.expert_count": 3, "llama.expert_used_count": 1, "llama.expert_group_count": 2}
print(raised(lambda: load(kv_overrides=groups)))
print(LlamaContext(load(), params()).decode(batch_of()))
"""
    failed, status = in_process(code).splitlines()
    assert re.match(r"RuntimeError: cannot load .*a check of llama.cpp failed.*GGML_ASSERT\(.*expert_groups", failed)
    assert status == "0"


def test_a_failing_check_starts_no_debugger(in_process: Callable[..., str]):
    code = """
import ctypes
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
print(getenv(b"GGML_NO_BACKTRACE"))
"""
    assert in_process(code, backtrace=True) == "b'1'\n"


@pytest.mark.parametrize("scaling", ["dynamic", "x", "Linear"])
def test_rope_scaling_of_an_unknown_type_is_refused(scaling: str, tiny_chat: Path, tmp_path: Path):
    expected = f'llama.rope.scaling.type is "{scaling}", and llama.cpp knows none, linear, yarn and longrope'
    params = LlamaModelParams()
    params.kv_overrides = {"llama.rope.scaling.type": scaling}
    with pytest.raises(RuntimeError, match=re.escape(expected)):
        LlamaModel(tiny_chat, params)
    with pytest.raises(RuntimeError, match=re.escape(expected)):
        LlamaModel(write_one_layer(tmp_path / "llama.gguf", rope_scaling=scaling))
    params.kv_overrides = {"llama.rope.scaling.type": "linear"}
    LlamaModel(tiny_chat, params).close()


def test_an_odd_number_of_rotated_dimensions_is_refused(tiny_chat: Path):
    params = LlamaModelParams()
    params.kv_overrides = {"llama.rope.dimension_count": 7}
    with pytest.raises(RuntimeError, match=r"llama\.rope\.dimension_count is 7, and has to be even"):
        LlamaModel(tiny_chat, params)


@pytest.mark.parametrize(
    ("kind", "sentencepiece", "why"),
    [
        ("bert", True, "tokens of single bytes"),
        ("bert", False, "has merges"),
        ("llama", False, "has merges"),
        ("t5", False, "has merges"),
        ("rwkv", False, "has merges"),
        ("gpt2", True, "merges"),
    ],
)
def test_a_vocabulary_of_another_kind_is_refused(kind: str, sentencepiece: bool, why: str, tmp_path: Path):
    path = write_random_model(tmp_path / "model.gguf", "llama", sentencepiece=sentencepiece)
    params = LlamaModelParams()
    params.kv_overrides = {"tokenizer.ggml.model": kind}
    with pytest.raises(RuntimeError, match=why):
        LlamaModel(path, params)


def test_a_word_piece_vocabulary_without_a_separator_is_refused(tmp_path: Path):
    path = write_random_bert(tmp_path / "bert.gguf")
    params = LlamaModelParams()
    # No such token: llama.cpp keeps its own default, which this small vocabulary has not either.
    params.kv_overrides = {"tokenizer.ggml.seperator_token_id": 2**31}
    with pytest.raises(RuntimeError, match="its vocabulary has no separator token"):
        LlamaModel(path, params)
