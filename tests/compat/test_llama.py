"""The object itself: how it is made, its tokens, embeddings, copies and end."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

from cyllama import CompatibilityError, ConfigError, ConfigTypeError, ModelNotFoundError, SessionFileError
from cyllama.compat import Llama
from cyllama.compat.arguments import loading_options, seed_of
from cyllama.models import TINY_CHAT

from ..support.lora import write_files
from ..support.random_models import write_random_model

TEXT = "Ada und Bäume: 你好 🙂"


def test_arguments_of_a_program_are_taken_as_they_are():
    with Llama(
        model_path=str(TINY_CHAT),
        n_gpu_layers=-1,
        split_mode=1,
        main_gpu=0,
        vocab_only=False,
        use_mmap=True,
        use_mlock=False,
        seed=1337,
        n_ctx=512,
        n_batch=256,
        n_ubatch=128,
        n_threads=1,
        n_threads_batch=1,
        rope_scaling_type=-1,
        pooling_type=-1,
        rope_freq_base=0.0,
        logits_all=True,
        embedding=True,
        offload_kqv=True,
        flash_attn=False,
        last_n_tokens_size=32,
        lora_base=None,
        numa=False,
        draft_model=None,
        tokenizer=None,
        type_k=1,
        type_v=1,
        spm_infill=False,
        verbose=False,
        n_parallel=2,  # one of ours
    ) as llama:
        config, generation = llama.llm.model_config, llama.llm.config
        assert (config.n_ubatch, config.type_k, config.flash_attn, config.n_parallel) == (128, "f16", "disabled", 2)
        assert (generation.n_batch, generation.penalty_last_n, llama.n_ctx()) == (256, 32, 512)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"use_mmap": False}, {"load_mode": "none"}),
        ({"use_mlock": True}, {"load_mode": "mmap_mlock"}),
        ({"use_mmap": False, "use_mlock": True}, {"load_mode": "mlock"}),
        ({"use_mmap": True}, {}),
        ({"type_k": 8, "type_v": "q4_0"}, {"type_k": "q8_0", "type_v": "q4_0"}),
        ({"flash_attn": True}, {"flash_attn": "enabled"}),
        ({"rope_scaling_type": 2}, {"rope_scaling_type": "yarn"}),
        ({"tensor_split": [1.0, 2.0], "numa": True}, {"tensor_split": [1.0, 2.0]}),
    ],
)
def test_values_are_those_of_our_options(arguments: Any, expected: Any):
    assert loading_options(arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"type_k": 99}, ConfigError, r"type_k is one of 0 \(f32\)"),
        ({"draft_model": print}, CompatibilityError, 'speculation="lookup"'),
        ({"vocab_only": True}, CompatibilityError, "always loaded"),
        (
            {"pooling_type": 2},
            CompatibilityError,
            r"pooling_type=2 cannot be chosen: this model pools by pooling_type=1 \(MEAN\); "
            r"kv_overrides=\{'llama.pooling_type': 2\} loads it as if",
        ),
        ({"tokenizer": print}, CompatibilityError, "tokenizer of the model's file"),
        ({"n_bach": 3}, ConfigTypeError, "did you mean 'n_batch'"),
    ],
)
def test_what_cannot_be_followed_is_refused(arguments: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        Llama(str(TINY_CHAT), **arguments)


def test_a_missing_file_is_an_error_of_values_and_of_files(tmp_path: Any):
    with pytest.raises(ModelNotFoundError):
        Llama(model_path=str(tmp_path / "missing.gguf"))


@pytest.mark.parametrize(("seed", "expected"), [(-1, None), (2**32 - 1, None), (None, None), (0, 0), (2**32 + 4, 5)])
def test_seeds_have_32_bits(seed: int | None, expected: int | None):
    assert seed_of(seed) == expected


def test_tokens_are_of_bytes(llama: Llama):
    tokens = llama.tokenize(TEXT.encode(), add_bos=False)
    assert tokens == llama.llm.tokenize(TEXT, add_bos=False, parse_special=False)
    assert llama.detokenize(tokens).decode() == TEXT
    assert llama.detokenize(llama.tokenize(b" twice")) == b" twice"
    start = b"<|im_start|>"
    assert len(llama.tokenize(start, special=True)) < len(llama.tokenize(start))
    marker = llama.tokenize(start, special=True)
    assert (llama.detokenize(marker), llama.detokenize(marker, special=True)) == (b"", start)
    pieces = [llama.detokenize([token], prev_tokens=tokens[:i]) for i, token in enumerate(tokens)]
    assert b"".join(pieces) == TEXT.encode()


def test_numbers_of_the_model(llama: Llama):
    vocab = llama.llm.model.vocab
    assert (llama.n_vocab(), llama.n_embd(), llama.n_ctx()) == (
        vocab.n_tokens,
        llama.llm.model.n_embd,
        llama.llm.n_ctx_train,
    )
    assert (llama.token_bos(), llama.token_eos(), llama.token_nl()) == (vocab.bos, vocab.eos, vocab.nl)
    assert llama.metadata["general.architecture"] == "llama"


def test_embeddings_in_openais_shape(llama: Llama):
    texts = ["A fox sleeps.", "An owl"]
    answer = llama.create_embedding(texts)
    n = sum(llama.llm.count_tokens(text) for text in texts)
    assert (answer["object"], answer["usage"]) == ("list", {"prompt_tokens": n, "total_tokens": n})
    assert [(item["object"], item["index"]) for item in answer["data"]] == [("embedding", 0), ("embedding", 1)]
    assert [item["embedding"] for item in answer["data"]] == llama.embed(texts)
    assert llama.embed(texts[0]) == llama.create_embedding(texts[0])["data"][0]["embedding"]
    assert math.hypot(*llama.embed("A fox", normalize=True)) == pytest.approx(1)
    assert len(llama.embed("word " * 5000)) == llama.n_embd(), "a text that is too long is cut"


def test_a_pooling_that_is_the_models_own_can_be_named(llama: Llama):
    with Llama(llama.model_path, embedding=True, pooling_type=1, n_threads=1) as mean:
        assert mean.embed("A fox") == pytest.approx(llama.embed("A fox"), rel=1e-3, abs=1e-3)
    last = {"kv_overrides": {"llama.pooling_type": 3}, "pooling_type": 3}
    with Llama(llama.model_path, n_threads=1, **last) as other:
        assert other.embed("A fox") != pytest.approx(llama.embed("A fox"), rel=1e-3, abs=1e-3)


def test_a_state_is_known_in_another_object_and_after_pickling(llama: Llama):
    begin = "<|im_start|>user\nTell me a story about a fox.<|im_end|>\n<|im_start|>assistant\n"
    answer = llama(begin, max_tokens=24, temperature=0)
    state = pickle.loads(pickle.dumps(llama.save_state()))
    assert state.n_tokens == answer.get("usage", {}).get("total_tokens")
    assert len(state.llama_state) == state.llama_state_size > 0
    with Llama(llama.model_path, n_threads=1) as other:
        other.load_state(state)
        again = other(begin + answer["choices"][0]["text"], max_tokens=4, temperature=0)
        expected = llama(begin + answer["choices"][0]["text"], max_tokens=4, temperature=0)
        assert again["choices"] == expected["choices"]
        assert other.llm.stats.prompt_tokens_evaluated < 8, "only what is new"


def test_a_state_without_a_call_has_the_seed_alone(llama: Llama):
    with Llama(llama.model_path, seed=7, n_threads=1) as seventh:
        state = seventh.save_state()
    assert (state.n_tokens, state.llama_state, state.seed) == (0, b"", 7)
    with Llama(llama.model_path, n_threads=1) as other:
        other.load_state(state)
        texts = {other("Once", max_tokens=8, temperature=1.5)["choices"][0]["text"] for _ in range(3)}
    assert len(texts) == 1


def test_a_state_of_another_model_is_refused(llama: Llama, tmp_path: Any):
    with Llama(str(write_random_model(tmp_path / "other.gguf", "llama")), n_threads=1) as other:
        other("Once", max_tokens=1)
        state = other.save_state()
    with pytest.raises(SessionFileError, match="model"):
        llama.load_state(state)


def test_an_adapter_computes_every_call(tmp_path: Any):
    files = write_files(tmp_path, "llama")
    options: Any = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
    with files.load() as llm:
        plain, adapted = (llm([1, 2, 3], lora=lora, **options) for lora in ({}, {"red": 0.5}))
    with Llama(str(files.model), lora_path=str(files.adapters["red"]), lora_scale=0.5, n_threads=1) as llama:
        text = llama([1, 2, 3], **options)["choices"][0]["text"]
    assert text == adapted != plain


def test_a_copy_loads_the_model_again(llama: Llama):
    with Llama(llama.model_path, n_ctx=128, chat_format="chatml", n_threads=1) as original:
        copy = pickle.loads(pickle.dumps(original))
    assert (copy.n_ctx(), copy.chat_format, copy.model_path) == (128, "chatml", llama.model_path)
    assert copy("Hello", max_tokens=1)["choices"][0]["finish_reason"] == "length"
    copy.close()


def test_what_needs_nothing_does_nothing(llama: Llama):
    llama.set_cache(object())
    llama.reset()
    assert llama("Hello", max_tokens=1)


@pytest.mark.parametrize("name", ["eval", "generate", "sample", "scores", "ctx", "tokenizer"])
def test_internals_say_what_there_is_instead(llama: Llama, name: str):
    with pytest.raises(AttributeError, match=rf"Llama\.{name} does not exist in cyllama\.compat: "):
        getattr(llama, name)
    assert not hasattr(llama, name)


def test_a_closed_object_frees_its_model_and_says_so():
    llama = Llama(str(TINY_CHAT))
    assert llama("Hello", max_tokens=1)
    llama.close()
    llama.close()
    for use in (
        lambda: llama("Hello"),
        lambda: llama.create_chat_completion([]),
        llama.n_ctx,
        lambda: llama.embed("x"),
    ):
        with pytest.raises(CompatibilityError, match="this Llama is closed"):
            use()
