"""Chat models: a model in this process answers LangChain's messages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import BaseModel
from typing_extensions import override

from cyllama import ChatTemplateError

from ._answering import AsyncOpening, Reading, aanswer, answer, open_call
from ._calls import NOT_OPTIONS
from ._chat_base import ChatBase, reads_images, without
from ._schemas import check_tool_choice, to_tool
from ._serialization import register
from ._structured import structured_output
from ._tracing import traced
from .answers import MODEL_PROVIDER, AnswerChunk, to_chunk, to_last, to_result, to_whole_chunk
from .messages import to_cyllama


class ChatCyllama(ChatBase, BaseChatModel):
    r"""A chat model that runs in this process. Every conversation is a session of it.

    ???+ note "Setup"

        ```bash
        pip install '.[langchain]'  # in a checkout of cyllama's repository
        ```

        The model is a GGUF file. Without one, tiny-chat answers, a small model in cyllama's package.

    Key init args — completion params:
        model_path: str | None
            A GGUF file, or a model on the hub: "owner/repo:Q4_K_M"; also as `model`.
        temperature: float | None
            0 always takes the most likely token.
        max_tokens: int | None
            Maximum number of tokens to generate.
        stop: list[str] | None
            Generation ends before the first of these.

    Key init args — sessions:
        session_id: str | None
            The conversation that all calls belong to; by default, the config of each call names it.
        sessions: str
            "concurrent", or "exclusive" to hold one conversation at a time.

    See full list of supported init args and their descriptions in the params section.

    Instantiate:
        ```python
        from langchain_cyllama import ChatCyllama

        model = ChatCyllama(
            model_path="model.gguf",
            temperature=0,
            max_tokens=256,
            # other params ...
        )
        ```

    Invoke:
        ```python
        messages = [
            ("system", "You are a helpful assistant."),
            ("human", "What is the capital of France?"),
        ]
        model.invoke(messages)
        ```

        ```text
        AIMessage(content='The capital of France is Paris.', ..., response_metadata={..., 'model_name': 'tiny-chat', 'finish_reason': 'stop', ...}, ...)
        ```

    Stream:
        ```python
        for chunk in model.stream(messages):
            print(chunk.text, end="")
        ```

    Async:
        ```python
        await model.ainvoke(messages)

        async for chunk in model.astream(messages):
            print(chunk.text, end="")

        await model.abatch([messages, messages])
        ```

        Parallel calls are decoded together. No thread waits for their answers.

    Sessions:
        ```python
        config = {"configurable": {"session_id": "ada"}}
        history = [("human", "My name is Ada.")]
        answer = model.invoke(history, config)

        history += [answer, ("human", "What is my name?")]
        answer = model.invoke(history, config)
        answer.usage_metadata["input_token_details"]["cache_read"]  # the first message and its answer
        ```

        Every call passes the whole history, as usual in LangChain, and only its new part is evaluated. The conversation
        of a call is the first of: `session_id`, an argument of the constructor, of `bind` or of the call;
        `configurable.session_id`, set by `RunnableWithMessageHistory`; `configurable.thread_id`, set by LangGraph. A call
        without any of them uses no cache, and leaves none. (On Python 3.10, async nodes of a graph have to pass their
        config on.) An edited history (edits, summaries, an earlier checkpoint) changes how much is evaluated, and never
        the answer.

        ```python
        model.reset_session("ada")  # the conversation has ended
        model.reset_sessions()  # all have
        ```

    Tool calling:
        ```python
        from pydantic import BaseModel, Field


        class GetWeather(BaseModel):
            '''Get the current weather in a given location.'''

            location: str = Field(description="The city and state, e.g. San Francisco, CA")


        model_with_tools = model.bind_tools([GetWeather])
        model_with_tools.invoke("What is the weather in Paris?").tool_calls
        ```

        ```text
        [{'name': 'GetWeather', 'args': {'location': 'Paris'}, 'id': '...', 'type': 'tool_call'}]
        ```

        The name and the arguments of a call always fit the tools, because the tools are the grammar of the answer.

    Structured output:
        ```python
        class Joke(BaseModel):
            '''Joke to tell user.'''

            setup: str = Field(description="question to set up a joke")
            punchline: str = Field(description="answer to resolve the joke")


        model.with_structured_output(Joke).invoke("Tell me a joke about cats.")
        ```

        See `ChatCyllama.with_structured_output()` for more.

    Token usage:
        ```python
        model.invoke(messages).usage_metadata
        ```

        ```text
        {'input_tokens': 28, 'output_tokens': 12, 'total_tokens': 40, 'input_token_details': {'cache_read': 0}}
        ```

    Response metadata:
        ```python
        metadata = model.invoke(messages).response_metadata
        metadata["model_name"], metadata["finish_reason"], metadata["timings"]
        ```

        ```text
        ('tiny-chat', 'stop', {'queued': ..., 'prompt': ..., 'generation': ...})
        ```
    """  # noqa: E501

    # -------------------- where the config is known

    if not TYPE_CHECKING:  # their types are LangChain's

        def stream_events(self, input, config=None, **kwargs):
            """Stream events: see `BaseChatModel.stream_events`."""
            if kwargs.get("version") == "v3":
                kwargs = self._with_calls(kwargs, [input], [config])
            return super().stream_events(input, config, **kwargs)

        def astream_events(self, input, config=None, **kwargs):
            """Stream events for an event loop: see `BaseChatModel.astream_events`."""
            if kwargs.get("version") == "v3":
                kwargs = self._with_calls(kwargs, [input], [config])
            return super().astream_events(input, config, **kwargs)

    # -------------------- generating

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        return to_result(*answer(request), request.call.model_name)

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        return to_result(*await aanswer(request), request.call.model_name)

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs)
        model_name = request.call.model_name
        if request.max_attempts > 1:  # chunks of an answer that is not valid could not be taken back
            found = answer(request)
            yield AnswerChunk(message=to_whole_chunk(found.response))
            yield to_last(*found, model_name)
            return
        with open_call(request) as stream:
            reading = Reading(stream)
            for delta in reading:
                chunk = AnswerChunk(message=to_chunk(delta))
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            yield to_last(*reading.answer, model_name)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs)
        model_name = request.call.model_name
        if request.max_attempts > 1:
            found = await aanswer(request)
            yield AnswerChunk(message=to_whole_chunk(found.response))
            yield to_last(*found, model_name)
            return
        async with AsyncOpening(request) as stream:
            reading = Reading(stream)
            async for delta in reading:
                chunk = AnswerChunk(message=to_chunk(delta))
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            yield to_last(*reading.answer, model_name)

    # -------------------- tools and structured output

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return a model that may call tools.

        >>> from langchain_cyllama import ChatCyllama
        >>> def add(a: int, b: int) -> int:
        ...     "Add two numbers."
        ...     return a + b
        >>> model = ChatCyllama(temperature=0).bind_tools([add], tool_choice="any")
        >>> [call] = model.invoke("What is the value of add(3, 4)? Use the tool.").tool_calls
        >>> call["name"], call["args"]
        ('add', {'a': 3, 'b': 4})

        Args:
            tools: Functions, tools, pydantic classes, TypedDicts or dicts: all that `convert_to_openai_tool` takes.
            tool_choice: Which tool the model has to call.

                - The name of a tool, or `{"type": "function", "function": {"name": ...}}`: this tool.
                - `"any"`, `"required"` or `True`: at least one tool.
                - `"auto"`, `None` or `False`: the model decides.
                - `"none"`: no tool, although the prompt describes them.
            parallel_tool_calls: Whether one answer may call several tools.
            strict: Whether a call is also validated against those rules of a tool's schema that no grammar can enforce.
                A call that is not valid is among the `invalid_tool_calls`; with `max_attempts`, the model tries again.
            **kwargs: More arguments for `bind`.

        Returns:
            A `Runnable` that gives an `AIMessage` with `tool_calls`.

        Raises:
            ToolError: No tool has the name in `tool_choice`.
        """
        formatted = [to_tool(tool, strict=strict) for tool in tools]
        if tool_choice:
            kwargs["tool_choice"] = check_tool_choice(tool_choice, formatted)
        if parallel_tool_calls is not None:
            kwargs["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(tools=formatted, **kwargs)

    @override
    def with_structured_output(
        self,
        schema: Any = None,
        *,
        method: Literal["function_calling", "json_mode", "json_schema"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a model whose answers are values of a schema.

        >>> from pydantic import BaseModel
        >>> from langchain_cyllama import ChatCyllama
        >>> class Person(BaseModel):
        ...     name: str
        ...     age: int
        >>> model = ChatCyllama(temperature=0).with_structured_output(Person)
        >>> model.invoke("Extract name and age as JSON: Ada is 36 years old.")
        Person(name='Ada', age=36)

        Args:
            schema: A pydantic class, a TypedDict, a dataclass or another type that pydantic can validate, a JSON schema
                (of an object or anything else, with or without a title), or an OpenAI tool.
            method: How the format is enforced.

                - `"json_schema"`: the answer is JSON, and the schema is its grammar. The model does not see the schema.
                - `"function_calling"`: the schema is a tool, which the model sees and has to call.
                - `"json_mode"`: the answer is any JSON. The messages have to describe the schema.
            include_raw: Return a dict of `raw`, `parsed` and `parsing_error` instead of the parsed answer. An error of
                parsing is then in the dict, and not raised.
            strict: Has no effect: a value is always valid under the schema.
            **kwargs: More arguments for `bind`. With `max_attempts`, the model tries again if an answer breaks a rule
                of the schema that no grammar can enforce.

        Returns:
            A `Runnable` that gives an instance of `schema` if that is a type, and the parsed JSON if it is a TypedDict
            or a JSON schema. For an answer that was cut, the `Runnable` raises an `OutputParsingError`. A stream of
            dicts yields growing dicts during the generation, and raises at its end; a stream of instances yields the
            whole instance.

        Raises:
            ConfigError: The method does not exist, or the schema is missing.
            SchemaError: `schema` has no JSON schema.
        """
        return structured_output(self, schema, method=method, include_raw=include_raw, strict=strict, options=kwargs)

    # -------------------- tokens

    @override
    def get_num_tokens_from_messages(
        self,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Return the number of tokens in the prompt of messages.

        For messages that are not a complete chat, such as a tool's result without its call, it counts the tokens of
        their JSON.

        >>> from langchain_core.messages import HumanMessage
        >>> from langchain_cyllama import ChatCyllama
        >>> ChatCyllama().get_num_tokens_from_messages([HumanMessage("My name is Ada.")])
        15

        Args:
            messages: Any messages.
            tools: Tools that the prompt describes.

        Raises:
            MessageError: A message is a command such as `RemoveMessage`.
        """
        if not messages:
            return 0
        converted = to_cyllama(messages, images=reads_images(self.client))
        definitions = [to_tool(tool) for tool in tools or ()]
        try:
            options = {"tools": definitions, "chat_template": self.chat_template, "continue_final_message": False}
            return self.client.count_tokens(converted, **options)
        except ChatTemplateError:
            text = "\n".join(json.dumps(message, ensure_ascii=False) for message in [*converted, *definitions])
            return len(self.client.tokenize(text, parse_special=False))

    # -------------------- what LangChain wants to know

    @property
    @override
    def _llm_type(self) -> str:
        return "chat-cyllama"

    @override
    def _resolve_model_profile(self) -> ModelProfile:
        n_ctx = self._options().get("n_ctx")
        return ModelProfile(
            max_input_tokens=n_ctx or self.client.n_ctx_train,
            text_inputs=True,
            image_inputs=reads_images(self.client),
            image_url_inputs=False,
            image_tool_message=reads_images(self.client),
            audio_inputs=False,
            video_inputs=False,
            pdf_inputs=False,
            text_outputs=True,
            tool_calling=True,
            tool_choice=True,
            tool_call_streaming=True,
            structured_output=True,
        )

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        options = self._options_of_trace(stop, kwargs)
        name = str(options.get("model") or self.client.model_name)
        return traced(self.client.config, options, ls_provider=MODEL_PROVIDER, ls_model_name=name, ls_model_type="chat")

    @override
    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop, **without(kwargs, *NOT_OPTIONS))

    @override
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Return the key of a cached answer. It does not depend on the session, which has no effect on answers."""
        params = {**self._get_invocation_params(stop, **kwargs), "stop": stop}
        if self.llm is not None:
            params["llm"] = self.llm.config
        return json.dumps(params, sort_keys=True, default=_shown)

    @override
    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        total: dict[str, int] = {}
        for output in llm_outputs:
            for name, count in ((output or {}).get("token_usage") or {}).items():
                total[name] = total.get(name, 0) + count
        return {"token_usage": total, "model_name": self.client.model_name}


def _shown(value: Any) -> str:
    """Return a text that is different for different values."""
    return str(value.model_json_schema()) if isinstance(value, type) and issubclass(value, BaseModel) else repr(value)


register(ChatCyllama)
