"""Settings by flags, variables and files, and the help that explains them."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
from pathlib import Path

import pytest

import cyllama_server
from cyllama.cli import main
from cyllama_server import ServerSettings, read_settings


def test_a_flag_is_stronger_than_a_variable_and_that_than_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in (("server.toml", "port = 1\nmax_queue = 1\nmax_tokens = 1"), ("server.json", None)):
        file = tmp_path / name
        file.write_text(text or json.dumps({"port": 1, "max_queue": 1, "max_tokens": 1}))
        monkeypatch.setenv("CYLLAMA_PORT", "2")
        monkeypatch.setenv("CYLLAMA_MAX_QUEUE", "2")
        settings = read_settings(file, port=3)
        assert (settings.port, settings.max_queue, settings.max_tokens) == (3, 2, 1)


def test_a_variable_has_a_list_with_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CYLLAMA_MODEL", "small=small.gguf, owner/repo:Q4_K_M")
    monkeypatch.setenv("CYLLAMA_API_KEY", '["one", "two, three"]')
    settings = ServerSettings()
    assert settings.models == {"small": "small.gguf", "owner/repo:Q4_K_M": "owner/repo:Q4_K_M"}
    assert settings.keys == ["one", "two, three"]
    assert "two" not in repr(settings)


def test_options_of_one_model_are_stronger_than_those_of_all():
    options = ["small.n_ctx=1", "n_ctx=2", 'type_k="q8_0"', "type_v=q8_0", "temperature=0.5"]
    settings = ServerSettings(model=["small=a.gguf", "big=b.gguf"], option=options)
    common = {"type_k": "q8_0", "type_v": "q8_0", "temperature": 0.5}
    assert settings.options_of("small") == common | {"n_ctx": 1}
    assert settings.options_of("big") == common | {"n_ctx": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99999"], "port"),
        (["--model", "a=x.gguf", "--model", "a=y.gguf"], "same name"),
        (["--model", "=x.gguf"], "NAME=VALUE"),
        (["--option", "nope=1"], "no option of LLM"),
        (["--option", "b.n_ctx=1", "--model", "a=x.gguf"], "for a model"),
        (["--tls-cert", "x.pem"], "belong together"),
        (["--log-level", "loud"], "debug, info"),
        (["--config", "missing.toml"], "cannot read the settings in 'missing.toml': No such file"),
        (["--model", "a="], "model: expected NAME=VALUE, not 'a='"),
        (["--api-key-file", "missing.txt"], "expected a file with a key in each line (No such file or directory)"),
        (["--tls-cert", "x.pem", "--tls-key", "y.pem"], "tls_cert='x.pem' and tls_key='y.pem' are not a certificate"),
        (["--session-dir", __file__], "session_dir: expected a folder, not '/"),
        (["--port", "0", "--model", "nowhere.gguf"], "does not start: there is no model file at 'nowhere.gguf'"),
        (["--port", "0", "--option", "n_ctx=abc"], "does not start: GenerationConfig.n_ctx: input should be a valid"),
        (["--port", "0", "--memory-budget-mb", "1"], "does not start: the model 'tiny-chat' has"),
    ],
)
def test_a_setting_that_is_not_valid_is_refused_before_anything_is_loaded(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments])
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert message in " ".join(text.split())
    assert "Traceback" not in text


def test_a_list_is_no_file_of_settings_and_a_key_is_in_no_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "settings.json"
    file.write_text("[1]")
    monkeypatch.setenv("CYLLAMA_API_KEY", '["secret", 5]')
    for arguments in (["--config", str(file)], []):
        with pytest.raises(SystemExit) as ended:
            main(["serve", *arguments])
        text = capsys.readouterr().err
        assert (ended.value.code, "Traceback" in text, "secret" in text) == (2, False, False)


def test_the_help_explains_every_setting(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in ServerSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
        assert f"CYLLAMA_{name.upper()}" in text


@pytest.mark.parametrize("module", sorted(each.name for each in pkgutil.iter_modules(cyllama_server.__path__)))
def test_the_examples_of_the_docstrings_do_what_they_say(module: str):
    assert doctest.testmod(importlib.import_module(f"cyllama_server.{module}")).failed == 0
