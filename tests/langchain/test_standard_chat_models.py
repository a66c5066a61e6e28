"""LangChain's own tests of chat models, all of them: nothing is left out but what a model of texts cannot read."""

from __future__ import annotations

import shutil
from typing import Any, ClassVar, Literal, cast

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_cyllama import ChatCyllama

# Both suites give parameters of remote models: api_key, timeout, max_retries.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_cyllama.UnusedArgumentWarning")

UsageDetails = dict[
    Literal["invoke", "stream"],
    list[Literal["audio_input", "audio_output", "reasoning_output", "cache_read_input", "cache_creation_input"]],
]


class TestChatCyllamaUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatCyllama

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"LC_OUTPUT_VERSION": "v1"}, {}, {"output_version": "v1"}


@pytest.fixture(scope="module", autouse=True)
def _another_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("models") / "another.gguf"
    shutil.copy(ChatCyllama().client.model_path, path)
    TestChatCyllamaIntegration.another_model = str(path)


# The suite has a test of recorded answers. There are no records here, because no network is used.
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used:pytest_benchmark.logger.PytestBenchmarkWarning")
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.filterwarnings("ignore:Core Pydantic V1 functionality isn't compatible:UserWarning")
class TestChatCyllamaIntegration(ChatModelIntegrationTests):
    another_model: ClassVar[str]

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatCyllama

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0}

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def returns_usage_metadata(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> UsageDetails:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        model, config = ChatCyllama(temperature=0), RunnableConfig(configurable={"session_id": "cached"})
        history: list[Any] = [("human", "My name is Ada.")]
        history += [model.invoke(history, config), ("human", "What is my name?")]
        if not stream:
            return model.invoke(history, config)
        first, *others = model.stream(history, config)
        for chunk in others:
            first += chunk
        return cast("AIMessage", first)

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return self.another_model

    @property
    def enable_vcr_tests(self) -> bool:
        return True
