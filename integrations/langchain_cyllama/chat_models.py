"""Chat models: messages of LangChain answered by a model in this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list
from langchain_core.tools import BaseTool
from pydantic import BaseModel, PrivateAttr
from typing_extensions import override

from cyllama import (
    LLM,
    ChatTemplateError,
    ConfigError,
    ModelConfig,
    ToolError,
)
from cyllama.attempts import check_attempts

from ._base import N_PARALLEL, CyllamaBase
from ._calls import Answer, AsyncOpening, Call, Prepared, Reading, aanswer, answer, as_completed, in_threads, open_call
from ._schemas import read_schema, to_tool
from ._serialization import register
from ._shared import SharedLLM, share
from ._structured import AnswerParser, structured
from .answers import MODEL_PROVIDER, AnswerChunk, to_chunk, to_langchain, to_last_chunk, to_whole_chunk
from .messages import to_cyllama
from .sessions import find_session, fingerprint, opening

_CALL = "cyllama_call"  # the argument that a call's session travels in, from where the config is known
_NOT_PARAMETERS = (_CALL, "session_id")
_LANGCHAIN_ONLY = (
    "ls_structured_output_format",
    "structured_output_format",
    "stream",
    "stream_usage",
    "strict",
)
_PROMPT_OPTIONS = ("tools", "chat_template", "chat_template_kwargs", "enable_thinking", "reasoning_effort")


class ChatCyllama(CyllamaBase, BaseChatModel):
    r"""A chat model that runs in this process, in which every conversation is a session.

    ???+ note "Setup"

        ```bash
        pip install -U 'cyllama[langchain]'
        ```

        A GGUF file is all that is needed more; without one, tiny-chat answers, a small model that is part of cyllama.

    Key init args — completion params:
        model_path: str | None
            A GGUF file; also as `model`.
        temperature: float | None
            0 always takes the most likely token.
        max_tokens: int | None
            Most tokens to generate.
        stop: list[str] | None
            Generation ends before the first of these.

    Key init args — sessions:
        session_id: str | None
            The conversation that all calls belong to; by default the one that a call's config names.
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

        ```python
        AIMessage(content='The capital of France is Paris.', response_metadata={'model_name': 'tiny-chat', 'finish_reason': 'stop', ...}, usage_metadata={'input_tokens': 31, 'output_tokens': 8, 'total_tokens': 39, 'input_token_details': {'cache_read': 0}})
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

        Calls that run side by side are decoded together, and no thread waits for any of them.

    Sessions:
        ```python
        config = {"configurable": {"session_id": "ada"}}
        history = [("human", "My name is Ada.")]
        answer = model.invoke(history, config)

        history += [answer, ("human", "What is my name?")]
        answer = model.invoke(history, config)
        answer.usage_metadata["input_token_details"]["cache_read"]  # all that was there before
        ```

        Every turn brings the whole history, as always in LangChain, and only what is new of it is evaluated. The
        conversation is the first of: `session_id`, given to the constructor, to `bind` or to the call;
        `configurable.session_id`, which `RunnableWithMessageHistory` has; `configurable.thread_id`, which LangGraph has.
        A call that has none of them starts clean, and leaves nothing. (On Python 3.10, async nodes of a graph have to pass
        their config on.) What changes the history (edits, summaries, an
        earlier checkpoint) changes how much is evaluated, and nothing else.

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

        ```python
        [{'name': 'GetWeather', 'args': {'location': 'Paris'}, 'id': '4c1c0bb5d', 'type': 'tool_call'}]
        ```

        What is called, and with what, always fits the tools: they are the grammar of the answer.

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

        ```python
        {'input_tokens': 31, 'output_tokens': 8, 'total_tokens': 39, 'input_token_details': {'cache_read': 0}}
        ```

    Response metadata:
        ```python
        metadata = model.invoke(messages).response_metadata
        metadata["model_name"], metadata["finish_reason"], metadata["timings"]
        ```

        ```python
        ('tiny-chat', 'stop', {'queued': 0.0003, 'prompt': 0.0089, 'generation': 0.0061})
        ```
    """  # noqa: E501

    chat_template: str | None = None
    """Jinja source to use instead of the model's own template."""

    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template by name; the values are JSON."""

    enable_thinking: bool | None = None
    """Whether the model reasons before it answers, where its template can be told.

    What it thinks is in `additional_kwargs["reasoning_content"]`, and among the `content_blocks`.
    """

    reasoning_effort: str | None = None
    """How hard the model reasons, where its template can be told: "minimal", "low", "medium", "high" or "xhigh".

    "none" turns reasoning off, as `enable_thinking=False` does.
    """

    continue_final_message: bool | None = None
    """Whether the answer continues the last message where that is an `AIMessage`, instead of following it.

    The answer is what follows it. (Default: it does so for answers in words and calls of tools; structured ones, of
    `response_format` and `with_structured_output`, are messages of their own.)
    """

    reasoning_budget: int | None = None
    """Tokens that the model may reason with; then the end of its reasoning is forced.

    -1 for any number, 0 turns reasoning off. (Default: `-1`)
    """

    reasoning: bool | str | dict[str, Any] | None = None
    """Another name for `enable_thinking` with a `bool`, and for `reasoning_effort` with a level."""

    parallel_tool_calls: bool | None = None
    """Whether one answer may call several tools. (Default: `False`)"""

    _others: dict[str, SharedLLM] = PrivateAttr(default_factory=dict)

    @override
    def _loaded(self) -> list[LLM]:
        return [*super()._loaded(), *(shared.load() for shared in self._others.values())]

    # -------------------- where the config is known

    def _with_call(self, kwargs: dict[str, Any], config: RunnableConfig | None) -> tuple[dict[str, Any], Call]:
        call = kwargs.get(_CALL)
        if not isinstance(call, Call):
            named = kwargs.get("model")
            call = Call(
                find_session(kwargs.get("session_id") or self.session_id, config),
                None if named is None else str(named),
            )
        return {**kwargs, _CALL: call}, call

    @override
    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        kwargs, _ = self._with_call(kwargs, config)
        return super().invoke(input, config, stop=stop, **kwargs)

    @override
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        kwargs, _ = self._with_call(kwargs, config)
        return await super().ainvoke(input, config, stop=stop, **kwargs)

    @override
    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        kwargs, call = self._with_call(kwargs, config)
        try:
            yield from super().stream(input, config, stop=stop, **kwargs)
        finally:  # closed early: whoever still refers to a frame of it keeps nothing running
            call.cancel()

    @override
    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        kwargs, call = self._with_call(kwargs, config)
        try:
            async for chunk in super().astream(input, config, stop=stop, **kwargs):
                yield chunk
        finally:  # an event loop closes what is inside when it gets to it
            call.cancel()

    if not TYPE_CHECKING:  # their types are LangChain's

        def stream_events(self, input, config=None, **kwargs):
            """Stream events: see `BaseChatModel.stream_events`."""
            if kwargs.get("version") == "v3":
                kwargs, _ = self._with_call(kwargs, config)
            return super().stream_events(input, config, **kwargs)

        def astream_events(self, input, config=None, **kwargs):
            """Stream events for an event loop: see `BaseChatModel.astream_events`."""
            if kwargs.get("version") == "v3":
                kwargs, _ = self._with_call(kwargs, config)
            return super().astream_events(input, config, **kwargs)

    @override
    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        if len(inputs) < 2:
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        with self._answering(inputs, config, return_exceptions, kwargs) as futures:
            return [future.result()[1] for future in futures]

    if not TYPE_CHECKING:

        def batch_as_completed(self, inputs, config=None, *, return_exceptions=False, **kwargs):
            """Answer many chats, and yield each answer with its index as soon as it is complete."""
            if inputs:
                with self._answering(inputs, config, return_exceptions, kwargs) as futures:
                    yield from as_completed(futures)

    def _answering(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None,
        return_exceptions: bool,
        kwargs: dict[str, Any],
    ) -> AbstractContextManager[list[Future[tuple[int, Any]]]]:
        """Answer many chats side by side, and cancel what is not answered on the way out."""
        configs = _side_by_side(config, len(inputs))
        given = [self._with_call(kwargs, each) for each in configs]

        def answer_one(i: int) -> Any:
            try:
                return self.invoke(inputs[i], configs[i], **given[i][0])
            except Exception as error:
                if return_exceptions:
                    return error
                raise

        return in_threads(configs[0], [call for _, call in given], answer_one)

    # -------------------- generating

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        prepared = self._prepare(messages, stop, kwargs)
        return _to_result(answer(prepared), prepared.call.model_name)

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        prepared = self._prepare(messages, stop, kwargs)
        return _to_result(await aanswer(prepared), prepared.call.model_name)

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        prepared = self._prepare(messages, stop, kwargs)
        model_name = prepared.call.model_name
        if prepared.max_attempts > 1:  # what was streamed could not be taken back
            found = answer(prepared)
            yield AnswerChunk(message=to_whole_chunk(found.response))
            yield _to_last_chunk(found, model_name)
            return
        with open_call(prepared) as stream:
            reading = Reading(stream)
            for delta in reading:
                chunk = AnswerChunk(message=to_chunk(delta))
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            yield _to_last_chunk(reading.answer, model_name)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        prepared = self._prepare(messages, stop, kwargs)
        model_name = prepared.call.model_name
        if prepared.max_attempts > 1:
            found = await aanswer(prepared)
            yield AnswerChunk(message=to_whole_chunk(found.response))
            yield _to_last_chunk(found, model_name)
            return
        async with AsyncOpening(prepared) as stream:
            reading = Reading(stream)
            async for delta in reading:
                chunk = AnswerChunk(message=to_chunk(delta))
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            yield _to_last_chunk(reading.answer, model_name)

    def _prepare(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> Prepared:
        given, call = self._with_call(dict(kwargs), None)
        options = self._call_options(stop, _without(given, *_NOT_PARAMETERS, *_LANGCHAIN_ONLY))
        max_attempts = check_attempts(options.pop("max_attempts", 1))
        llm = self._client_of(options.pop("model", None) or options.pop("model_path", None))
        if options.get("response_format") is not None:
            options.setdefault("continue_final_message", False)  # agents ask for it after the last answer
        converted = to_cyllama(messages)
        before = fingerprint([options.get(name) for name in _PROMPT_OPTIONS])
        return Prepared(
            llm,
            converted,
            options,
            call,
            [before, *map(_fingerprint, converted)],
            1 + opening(converted),
            len(messages),
            exclusive=self.sessions == "exclusive",
            max_attempts=max_attempts,
        )

    def _client_of(self, model: Any) -> LLM:
        """Return the model of this object, or the one that a call names instead."""
        if model is None or str(model) == str(self._path()):
            return self.client
        if self.llm is not None:
            raise ConfigError(f"model is {model!r:.80}, but this object was given an llm: use another object for it")
        shared = self._others.get(str(model))
        if shared is None:
            options = {"n_parallel": N_PARALLEL, **self._loading()}
            shared = self._others.setdefault(str(model), share(str(model), ModelConfig(**options)))
        return shared.load()

    @override
    def close(self) -> None:
        super().close()
        self._others = {}  # a copy may have the other one

    @override
    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {**state["__pydantic_private__"], "_others": {}}}

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
        """Bind tool-like objects to this chat model.

        ```python
        model.bind_tools([get_weather], tool_choice="any").invoke("Hello").tool_calls
        ```

        Args:
            tools: Functions, tools, pydantic classes, TypedDicts or dicts: whatever `convert_to_openai_tool` takes.
            tool_choice: Which tool the model has to call.

                - The name of a tool, or `{"type": "function", "function": {"name": ...}}`: this one.
                - `"any"`, `"required"` or `True`: at least one.
                - `"auto"`, `None` or `False`: as it likes.
                - `"none"`: none, although the prompt describes them.
            parallel_tool_calls: Whether one answer may call several tools.
            strict: Whether a call has to be valid also under what no grammar can say of a tool. One that is not is
                among the `invalid_tool_calls`; `max_attempts` samples again.
            **kwargs: More arguments for `bind`.

        Raises:
            ToolError: There is no tool of the name in `tool_choice`.
        """
        formatted = [to_tool(tool, strict=strict) for tool in tools]
        if tool_choice:
            kwargs["tool_choice"] = _check_tool_choice(tool_choice, formatted)
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
        """Return a model whose answers are formatted to match a schema.

        ```python
        class Joke(BaseModel):
            setup: str
            punchline: str


        model.with_structured_output(Joke).invoke("Tell me a joke about cats.")
        ```

        Args:
            schema: A pydantic class, a TypedDict, a dataclass or another type that pydantic can validate, a JSON schema
                (of an object or anything else, with or without a title), or an OpenAI tool.
            method: How the answer is given its form.

                - `"json_schema"`: the answer is JSON, and the schema is its grammar. The model does not see the schema.
                - `"function_calling"`: the schema is a tool, which the model sees and has to call.
                - `"json_mode"`: the answer is JSON. Which, the messages have to say.
            include_raw: Return a dict of `raw`, `parsed` and `parsing_error` instead of the parsed answer only, and
                raise no error of parsing.
            strict: Makes no difference: a value is always valid under the schema.
            **kwargs: More arguments for `bind`. With `max_attempts`, an answer that is not valid under what no grammar
                can say of the schema is sampled again.

        Returns:
            A `Runnable` that gives an instance of `schema` if that is a type, and what the JSON means if it is a
            TypedDict or a JSON schema. An answer that did not end by itself has no value: the `Runnable` raises an
            `OutputParsingError`. A stream of dicts yields what is there of them while they are generated, and raises at
            its end; a stream of instances yields the whole instance.

        Raises:
            ConfigError: There is no such method, or the schema is missing.
            SchemaError: There is no JSON schema of `schema`.
        """
        if method not in ("function_calling", "json_mode", "json_schema"):
            raise ConfigError(f"method is 'json_schema', 'function_calling' or 'json_mode', not {method!r:.80}")
        if schema is None and method != "json_mode":
            raise ConfigError(f"method={method!r} needs a schema: a pydantic class, a TypedDict or a JSON schema")
        wanted = None if schema is None else read_schema(schema)
        shown: dict[str, Any] = {"kwargs": {"method": method, "strict": strict}}
        if method == "json_mode":
            del shown["kwargs"]["strict"]
        shown["schema"] = None if wanted is None else wanted.shown
        kwargs = {"ls_structured_output_format": shown, **kwargs}
        if wanted is not None and method == "function_calling":
            name = wanted.tool["function"]["name"]
            kwargs = {"tool_choice": name, "parallel_tool_calls": False, **kwargs}
            checked = True if kwargs.get("max_attempts", 1) != 1 else strict  # what is not checked is not tried again
            model = self.bind_tools([wanted.tool_of(checked)], **kwargs)
            optional = kwargs["tool_choice"] in ("auto", "none", None, False)
            parser = AnswerParser(load=wanted.load_arguments, tool=name, optional=optional, grows=wanted.streams_calls)
            return structured(model, parser, include_raw=include_raw)
        form: dict[str, Any] = {"type": "json_object"}
        if wanted is not None and method == "json_schema":
            form = wanted.response_format(strict)
        model = self.bind(**{"response_format": form, **kwargs})
        load, grows = (json.loads, True) if wanted is None else (wanted.load, wanted.grows)
        return structured(model, AnswerParser(load=load, grows=grows), include_raw=include_raw)

    # -------------------- tokens

    @override
    def get_num_tokens_from_messages(
        self,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Return how many tokens the prompt of messages has.

        Messages that are no chat by themselves, such as the result of a tool without its call, are counted by what they
        say.

        Args:
            messages: Any messages.
            tools: Tools that the prompt describes.
        """
        if not messages:
            return 0
        converted = to_cyllama(messages)
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
            image_inputs=False,
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
        options = self._merge(stop, _without(kwargs, *_NOT_PARAMETERS, *_LANGCHAIN_ONLY, *self._unused))
        params = LangSmithParams(
            ls_provider=MODEL_PROVIDER,
            ls_model_name=str(options.get("model") or self.client.model_name),
            ls_model_type="chat",
        )
        config = self.client.config
        params["ls_temperature"] = options.get("temperature", config.temperature)
        if (max_tokens := options.get("max_tokens", config.max_tokens)) is not None:
            params["ls_max_tokens"] = max_tokens
        if stops := options.get("stop_sequences", config.stop_sequences):
            params["ls_stop"] = [stops] if isinstance(stops, str) else list(stops)
        return params

    @override
    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop, **_without(kwargs, *_NOT_PARAMETERS))

    @override
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Return what a cached answer depends on: not the session, which changes how long it takes only."""
        params = {**self._get_invocation_params(stop, **kwargs), "stop": stop}
        if self.llm is not None:
            params["llm"] = self.llm.config
        return json.dumps(params, sort_keys=True, default=_show)

    @override
    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        total: dict[str, int] = {}
        for output in llm_outputs:
            for name, count in ((output or {}).get("token_usage") or {}).items():
                total[name] = total.get(name, 0) + count
        return {"token_usage": total, "model_name": self.client.model_name}


register(ChatCyllama)

# -------------------------------------------------------------------------------------------------------------- details


def _side_by_side(config: RunnableConfig | Sequence[RunnableConfig] | None, n: int) -> list[RunnableConfig]:
    """Return configs by which so many calls have a thread each: the model decodes all of them together."""
    configs = get_config_list(config, n)
    if configs and configs[0].get("max_concurrency") is None:
        return [cast("RunnableConfig", {**each, "max_concurrency": n}) for each in configs]
    return configs


def _fingerprint(message: Mapping[str, Any]) -> int:
    """Return what stands for a message: all that a prompt has of it, and so not the ids of calls."""
    calls = [call["function"] for call in message.get("tool_calls", ())]
    return fingerprint(*(message.get(name) for name in ("role", "content", "name", "reasoning_content")), calls)


def _without(kwargs: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in names}


def _show(value: Any) -> str:
    """Return what tells a value from others."""
    return str(value.model_json_schema()) if isinstance(value, type) and issubclass(value, BaseModel) else repr(value)


def _to_result(answer: Answer, model_name: str | None) -> ChatResult:
    response, refused = answer
    message = to_langchain(response, model_name, refused)
    usage = response.usage
    generation = ChatGeneration(message=message, generation_info={"finish_reason": response.finish_reason})
    return ChatResult(
        generations=[generation],
        llm_output={
            "token_usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            },
            "model_name": message.response_metadata["model_name"],
        },
    )


def _to_last_chunk(answer: Answer, model_name: str | None) -> ChatGenerationChunk:
    response, refused = answer
    info = {"finish_reason": response.finish_reason}
    return AnswerChunk(message=to_last_chunk(response, model_name, refused), generation_info=info)


def _check_tool_choice(choice: dict[str, Any] | str | bool, tools: Sequence[Mapping[str, Any]]) -> Any:
    """Return a choice of tools as cyllama takes it."""
    if choice is True:
        return "required"
    known = [tool["function"]["name"] for tool in tools if "function" in tool]
    if isinstance(choice, str) and choice not in ("auto", "none", "any", "required", *known):
        raise ToolError(f"tool_choice is {choice!r:.80}, but the tools are {', '.join(known) or 'none'}")
    return choice
