"""The command line, as a person or a script would use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cyllama import LLM

from ..support.command import TOY, call, run
from ..support.random_models import REASONING, write_random_model

QUESTION = "What is the capital of France?"


def test_a_prompt_is_answered():
    result = run(*TOY, "--temperature", "0", QUESTION)
    assert (result.stdout, result.stderr, result.returncode) == ("The capital of France is Paris.\n", "", 0)


def test_the_prompt_may_come_on_standard_input():
    assert call("--temperature", "0", stdin=f"{QUESTION}\n").stdout == "The capital of France is Paris.\n"


def test_raw_continues_the_prompt_without_a_template():
    rendered = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    assert call("--raw", "--temperature", "0", rendered).stdout == "The capital of France is Paris.\n"
    assert call("--raw", "--temperature", "0", QUESTION).stdout != "The capital of France is Paris.\n"


def test_json_has_the_answer_and_its_figures():
    answer = json.loads(call("--json", "--temperature", "0", "-n", "4", QUESTION).stdout)
    assert answer["text"] == "The capital of F"
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 4
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 4
    assert answer["model"] == "tiny-chat"
    assert set(answer["timings"]) >= {"queued", "prompt", "generation"}


def test_stats_go_to_standard_error():
    result = call("--stats", "--temperature", "0", QUESTION)
    assert result.stdout == "The capital of France is Paris.\n"
    assert "17 prompt tokens" in result.stderr
    assert "tokens/s, finished by 'stop'" in result.stderr


def test_the_template_is_told_by_options(tmp_path: Path):
    template = "{{ messages[0].content }} {{ enable_thinking }} {{ reasoning_effort }} {{ style }} {{ style }}:"
    model = write_random_model(tmp_path / "told.gguf", "llama", chat_template=template)
    options = ("--no-thinking", "--reasoning-effort", "low", "--chat-template-kwargs", '{"style": "very kind"}')
    answer = json.loads(call("-m", str(model), "--json", "-n", "2", *options, "Hi").stdout)
    with LLM(model) as llm:
        assert answer["usage"]["prompt_tokens"] == llm.count_tokens("Hi False low very kind very kind:")
    refused = call("-m", str(model), "--chat-template-kwargs", "[1]", "Hi")
    assert refused.returncode == 2
    assert "expected a JSON object" in refused.stderr
    raw = call("--raw", "--reasoning-effort", "low", "Hi")
    assert raw.returncode == 2
    assert "reasoning_effort cannot be used here" in raw.stderr


def test_reasoning_ends_after_its_budget(tmp_path: Path):
    model = write_random_model(tmp_path / "reasons.gguf", "llama", chat_template=REASONING, endless=True)
    options = ("-m", str(model), "--temperature", "0", "-n", "24", "--json")
    unlimited = json.loads(call(*options, "Hi").stdout)
    limited = json.loads(call(*options, "--reasoning-budget", "4", "Hi").stdout)
    assert unlimited["text"] == ""
    assert unlimited["reasoning_content"].startswith(limited["reasoning_content"])
    assert limited["text"]
    line = call("chat", *options[:-1], "--reasoning-budget", "4", stdin="Hi\n")
    assert line.stdout.strip() == limited["text"].strip()
    refused = call("--reasoning-budget", "-5", "Hi")
    assert (refused.returncode, "-1 for any number" in refused.stderr) == (2, True)


def test_an_answer_begins_as_it_is_told():
    options = ("--temperature", "0", "--prefill", "The capital of")
    assert call(*options, QUESTION).stdout == "The capital of France is Paris.\n"
    answer = json.loads(call(*options, "--json", QUESTION).stdout)
    assert (answer["prefill"], answer["text"]) == ("The capital of", " France is Paris.")
    assert call("chat", *options, stdin=f"{QUESTION}\n").stdout == "The capital of France is Paris.\n"
    refused = call("--raw", *options, QUESTION)
    assert (refused.returncode, "prefill cannot be used here" in refused.stderr) == (2, True)


def test_a_seed_makes_the_answer_reproducible():
    story = "Tell me a story about a fox."
    assert call("--seed", "7", story).stdout == call("--seed", "7", story).stdout


def test_n_ctx_is_honoured():
    result = call("--n-ctx", "10", QUESTION)
    assert result.returncode == 2
    assert "17 tokens but n_ctx is 10" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "nowhere.gguf", "Hi"], "cyllama: there is no model file at 'nowhere.gguf'\n"),
        (["info", "-m", "nowhere.gguf"], "cyllama: there is no model file at 'nowhere.gguf'\n"),
        (
            ["--temperature", "-1", "Hi"],
            "cyllama: GenerationConfig.temperature: input should be greater than or equal to 0",
        ),
        (["-n", "-3", "Hi"], "cyllama: GenerationConfig.max_tokens: "),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(arguments: list[str], message: str):
    result = call(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unknown_option_is_explained():
    result = call("--temprature", "0", "Hi")
    assert result.returncode == 2
    assert "--temprature" in result.stderr


def test_a_file_that_is_no_model(tmp_path: Path):
    path = tmp_path / "notes [draft].gguf"
    path.write_text("no model")
    result = call("-m", str(path), "Hi")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "notes [draft].gguf" in result.stderr


def test_info_shows_build_devices_and_metadata():
    text = call("info").stdout
    for expected in ("llama.cpp", "b10605", "CPU", "tiny-chat.gguf", "general.name", "llama.context_length", "2048"):
        assert expected in text


def test_info_takes_a_model_and_explains_itself(tiny_chat: Path):
    assert "tiny-chat.gguf" in call("info", "-m", str(tiny_chat)).stdout
    assert "Usage: cyllama info" in call("info", "-h").stdout


def test_version():
    assert call("--version").stdout.startswith("cyllama ")


def test_standard_input_that_is_no_text():
    command = f"printf 'caf\\351' | {sys.executable} -m cyllama"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (
        2,
        "cyllama: standard input is not UTF-8: byte 3 is 0xe9; convert it with iconv\n",
    )


def test_a_terminal_without_unicode_shows_what_it_can():
    result = run(
        *TOY, "--temperature", "0", 'Repeat after me: "李明 🦊"', env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "??" in result.stdout


def test_a_closed_pipe_ends_the_command_without_a_traceback():
    command = f'{sys.executable} -m cyllama {" ".join(TOY)} --temperature 0 "Tell me a story about a fox." | head -c 4'
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert (result.stdout, result.stderr) == ("Once", "")


def test_non_ascii_text_in_and_out():
    result = run("--temperature", "0", 'Repeat after me: "李明 🦊"', env={"PYTHONIOENCODING": "utf-8"})
    assert "李明" in result.stdout


def test_help_names_the_other_commands():
    text = call("--help").stdout
    for name in ("cyllama chat", "cyllama embed", "cyllama info"):
        assert name in text


def test_a_prompt_that_is_the_name_of_a_command():
    result = call(*TOY, "--temperature", "0", "-n", "1", "--", "chat")
    assert (result.returncode, result.stderr) == (0, "(cut off after 1 token, as -n says)\n")
    assert result.stdout.strip()


def test_reasoning_is_no_part_of_the_answer(tmp_path: Path):
    path = write_random_model(tmp_path / "reasoning.gguf", "llama", chat_template=REASONING, endless=True)
    result = call("-m", str(path), "-n", "8", "--temperature", "0", "Hello")
    assert (result.stdout, result.returncode) == ("\n", 0)
    answer = json.loads(call("-m", str(path), "-n", "8", "--temperature", "0", "--json", "Hello").stdout)
    assert answer["text"] == ""
    assert answer["reasoning_content"]
    assert result.stderr == f"{answer['reasoning_content']}\n(cut off after 8 tokens, as -n says)\n"
