"""Every option is declared once: what is written elsewhere of it is generated from that, or says the same."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cyllama import LLM, ConfigError, GenerationConfig, ModelConfig
from cyllama.chat import check_variables
from cyllama.cli import main
from cyllama.cli.options import AnswerFlags
from cyllama.config import Config, NonNegative
from cyllama.declaration import Option, declaration, option
from cyllama.engine.sampling import sampler_maker
from cyllama.llama.llama_cpp import LlamaContextParams, LlamaModelParams, LlamaSampler
from cyllama.options import CHAT_OPTIONS, ChatOptions, call_options, find_option
from langchain_cyllama import ChatCyllama, CyllamaLLM
from langchain_cyllama._arguments import MEANINGS
from langchain_cyllama._base import N_PARALLEL

CONFIGS = (GenerationConfig, ModelConfig)
ROOT = Path(__file__).parents[2]
LINK = re.compile(r"arXiv:\d{4}\.\d{5}|[\w-]+/[\w.-]+#\d+")


class Warmer(GenerationConfig):
    """A config as it would be with another option."""

    warmth: NonNegative | None = option(
        0.5, "How warm an answer is.", none="as the model says", unit="degrees", source="llama_sampler_init_temp"
    )


def load_generator() -> ModuleType:
    path = ROOT / "tools/options.py"
    spec = importlib.util.spec_from_file_location("generate_options", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def declared() -> list[tuple[str, Option]]:
    of_configs = [(name, declaration(field)) for config in CONFIGS for name, field in config.model_fields.items()]
    return of_configs + [(name, said) for name, (_, said) in call_options().items()]


def test_generated_files_are_up_to_date():
    assert [path.name for path, _ in load_generator().outdated()] == [], "make options"


def test_a_new_option_is_one_edit():
    generator = load_generator()
    before, after = generator.of_config(GenerationConfig), generator.of_config(Warmer)
    assert [each.name for each in after if each not in before] == ["warmth"]
    new: list[str] = []
    for make in (generator.typed_dict, lambda each: generator.page([], each, [])):
        old = set(make(before).splitlines())
        new += [line for line in make(after).splitlines() if line not in old]
    assert new == [
        "    warmth: float | None",
        "| `warmth` | `float` or `None`, 0 or more | `0.5` | degrees | How warm an answer is. "
        "`None`: as the model says. | `llama_sampler_init_temp` |",
    ]
    assert (
        '    warmth: float | None = None\n    """How warm an answer is. (Default: `0.5`)"""\n'
        in generator.langchain_fields([], after, [])
    )


@pytest.mark.parametrize(("name", "said"), declared(), ids=lambda value: value if isinstance(value, str) else "")
def test_an_option_says_what_it_does_and_where_it_comes_from(name: str, said: Option):
    assert re.fullmatch(r"[A-Z0-9].*\.", said.text), "sentences"
    for source in re.split(r"[;,] ", said.source):
        kind, _, member = source.partition(".")
        if source.startswith("llama_sampler_init_"):
            assert hasattr(LlamaSampler, source.removeprefix("llama_sampler_init_"))
        elif kind == "llama_model_params":
            assert hasattr(LlamaModelParams(), member or name)
        elif kind == "llama_context_params":
            assert hasattr(LlamaContextParams(), member or name)
        else:
            assert LINK.fullmatch(source) or re.fullmatch(r"|(llama|common|ggml)_[\w.]+|\w+ et al\. \d{4}", source)


def test_every_sampling_option_cites_the_function_that_uses_it(llm: LLM):
    strong: dict[str, Any] = {
        "repeat_penalty": 1.1,
        "dry_multiplier": 1.0,
        "top_n_sigma": 1.0,
        "typical_p": 0.5,
        "xtc_probability": 0.5,
    }
    sampling = list(GenerationConfig.model_fields)
    sampling = sampling[sampling.index("temperature") : sampling.index("samplers")]
    cited = {declaration(GenerationConfig.model_fields[name]).source.partition(";")[0] for name in sampling}
    chain = sampler_maker(GenerationConfig(**strong), llm.model.vocab, 256)([1]).names
    used = {name.replace("-", "_") for name in chain} - {"dist"}
    assert {name.removeprefix("llama_sampler_init_") for name in cited} == used


def test_json_schemas_have_what_is_declared():
    schema = GenerationConfig.model_json_schema()["properties"]
    assert schema["top_p"] == {
        "default": 0.95,
        "description": find_option("top_p").text,
        "maximum": 1,
        "minimum": 0,
        "source": "llama_sampler_init_top_p; Holtzman et al. 2019, arXiv:1904.09751",
        "title": "Top P",
        "type": "number",
        "unit": "probability",
    }
    assert schema["seed"]["description"].endswith("`None` or -1: a new seed for every generation.")


@pytest.mark.parametrize("config", CONFIGS)
def test_help_lists_every_option_with_its_default(config: type[Config]):
    assert config.__doc__ is not None
    before, _, options = config.__doc__.partition("\n\nAttributes:\n")
    assert ">>> " in before
    assert re.findall(r"^    (\w+): ", options, re.MULTILINE) == list(config.model_fields)
    for name, field in config.model_fields.items():
        entry = re.search(rf"^    {name}: .*(\n {{8}}.*)*", options, re.MULTILINE)
        assert entry is not None
        assert f"default {field.get_default(call_default_factory=True)!r}" in re.sub(r"\s+", " ", entry[0]).replace(
            "``", "`"
        )


def test_chats_describe_every_option_of_theirs_as_it_is_declared():
    entries = re.findall(r"^ {16}(\w+): (.*(?:\n {20}.*)*)", inspect.getsource(LLM.chat), re.MULTILINE)
    said = {name: re.sub(r"\s+", " ", text).replace("``", "`") for name, text in entries}
    assert said == {name: find_option(name).description for name in CHAT_OPTIONS}


def test_a_text_that_drifts_is_out_of_date():
    """A word that was changed by hand, in the docstring or on the page, is put back."""
    generator = load_generator()
    llm, guide = ROOT / "cyllama/llm.py", ROOT / "docs/guides/command-line.md"
    source, page = llm.read_text(encoding="utf-8"), guide.read_text(encoding="utf-8")
    changed = source.replace("Whether one answer may call several tools.", "Whether it may call tools.")
    assert changed != source
    assert generator.chat_docstring(changed, generator.of_calls()) == source
    changed = page.replace("Show llama.cpp's log.", "Show a log.")
    assert changed != page
    commands = {"a prompt": generator.generate, **generator.COMMANDS}
    assert generator.command_line(changed, commands) == page


@pytest.mark.parametrize("check", ["max_attempts", "reasoning_budget"])
def test_what_is_said_of_a_range_is_what_is_checked(check: str, llm: LLM):
    def use(value: float) -> None:
        if check == "reasoning_budget":
            check_variables(reasoning_budget=int(value))
        else:
            llm("Hi", max_tokens=1, max_attempts=int(value))

    bounds = find_option(check).bounds
    assert bounds is not None
    for value in bounds:
        use(value)
    for value in (bounds[0] - 1, bounds[1] + 1):
        with pytest.raises(ConfigError, match=check):
            use(value)


def test_langchains_classes_take_every_option():
    assert set(GenerationConfig.model_fields) | set(ModelConfig.model_fields) <= set(CyllamaLLM.model_fields)
    methods_take = {"tools", "tool_choice", "max_attempts"}
    assert set(ChatOptions.__optional_keys__) - methods_take <= set(ChatCyllama.model_fields)
    for fields in (CyllamaLLM.model_fields, ChatCyllama.model_fields):
        assert all(fields[name].default is None for name, _ in declared() if name in fields)


def test_what_langchains_arguments_mean_besides_is_said():
    generator = load_generator()
    options = {name for name, _ in declared()}
    said = {*generator.ALSO, *generator.FOR_NONE, *generator.MORE, *generator.REPLACED, "grammar"}
    assert MEANINGS.keys() & options <= said
    assert generator.DEFAULTS == {"n_parallel": N_PARALLEL}


@pytest.mark.parametrize("command", [[], ["chat"]])
def test_flags_explain_themselves_as_the_options_do(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name in ("max_tokens", *AnswerFlags.__annotations__):
        assert find_option(name).text.replace("`", "") in shown
