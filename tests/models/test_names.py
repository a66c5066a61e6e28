"""What a name stands for, and which file of a repository it means: as llama.cpp's ``-hf`` has it."""

from __future__ import annotations

import pytest

from cyllama.models.names import ModelName, choose, files_of, matching, models_in, parse_name, quantization_of

FILES = [
    "README.md",
    "mmproj-model-f16.gguf",
    "model-Q2_K.gguf",
    "model-Q8_0-00001-of-00002.gguf",
    "model-Q8_0-00002-of-00002.gguf",
    "model-imatrix.gguf",
    "model-q4_k_m.gguf",
    "other/model-UD-Q6_K.gguf",
]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ada/tiny", ModelName("ada/tiny")),
        ("ada/tiny-1.5B_x:Q4_K_M", ModelName("ada/tiny-1.5B_x", "Q4_K_M")),
        ("hf:ada/tiny", ModelName("ada/tiny")),
        ("hf:ada/tiny:q8_0", ModelName("ada/tiny", "q8_0")),
        ("hf:ada/tiny/model.gguf", ModelName("ada/tiny", file="model.gguf")),
        ("hf:ada/tiny/folder/model.gguf", ModelName("ada/tiny", file="folder/model.gguf")),
    ],
)
def test_a_name_is_read(text: str, name: ModelName):
    assert parse_name(text) == name
    assert parse_name(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "model.gguf",
        "models/model.gguf",
        "./tiny",
        "../tiny",
        "/ada/tiny",
        "~/tiny",
        "ada/tiny/",
        "a/b/c",
        "ada",
        "",
        "a b/c",
    ],
)
def test_a_path_is_not_a_name(text: str):
    assert parse_name(text) is None


def test_projectors_and_later_parts_are_not_models():
    assert models_in(FILES) == [
        *("model-Q2_K.gguf", "model-Q8_0-00001-of-00002.gguf", "model-q4_k_m.gguf", "other/model-UD-Q6_K.gguf")
    ]
    sidecars = ["mtp-a.gguf", "eagle3-a.gguf", "dflash-a.gguf", "dspark-a.gguf"]
    assert models_in(sidecars) == []


@pytest.mark.parametrize(
    ("quantization", "file"),
    [
        (None, "model-q4_k_m.gguf"),
        ("Q4_K_M", "model-q4_k_m.gguf"),
        ("q8_0", "model-Q8_0-00001-of-00002.gguf"),
        ("Q6_K", "other/model-UD-Q6_K.gguf"),
        ("UD-Q6_K", "other/model-UD-Q6_K.gguf"),
        ("Q4_K", None),
        ("Q5_0", None),
        ("Q.*", None),
    ],
)
def test_a_quantization_chooses_a_file(quantization: str | None, file: str | None):
    assert choose(models_in(FILES), quantization) == file


def test_without_a_name_q4_k_m_is_taken_else_q8_0_else_the_first():
    assert choose(["a-F16.gguf", "a-Q8_0.gguf"], None) == "a-Q8_0.gguf"
    assert choose(["a-F16.gguf", "a-Q2_K.gguf"], None) == "a-F16.gguf"
    assert choose([], None) is None


def test_all_parts_belong_to_a_model():
    assert files_of("a-00002-of-00003.gguf") == [f"a-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert files_of("a.gguf") == ["a.gguf"]
    assert files_of("a-00004-of-00003.gguf") == ["a-00004-of-00003.gguf"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*Q8_0*.gguf", ["model-Q8_0-00001-of-00002.gguf"]),
        ("model-Q8_0-00002-of-00002.gguf", ["model-Q8_0-00001-of-00002.gguf"]),
        ("model-*", ["model-Q2_K.gguf", "model-Q8_0-00001-of-00002.gguf", "model-q4_k_m.gguf"]),
        ("mmproj-model-f16.gguf", ["mmproj-model-f16.gguf"]),
        ("README.md", []),
    ],
)
def test_a_pattern_finds_models(pattern: str, found: list[str]):
    assert matching(FILES, pattern) == found


@pytest.mark.parametrize(
    ("file", "quantization"),
    [("a-q4_k_m.gguf", "Q4_K_M"), ("a.Q8_0-00001-of-00002.gguf", "Q8_0"), ("a-chat.gguf", ""), ("a-BF16.gguf", "BF16")],
)
def test_the_quantization_is_in_the_name(file: str, quantization: str):
    assert quantization_of(file) == quantization
