"""Chat templates of model families, written from their public formats, and answers as their models write them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "location": {"type": "string", "description": "A city"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["location"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}},
    },
]

WEATHER = ("get_weather", {"location": 'São "Paulo"', "unit": "celsius"})
ADD = ("add", {"a": 3, "b": -4})
NOW = ("now", {})


@dataclass(frozen=True)
class Answer:
    """What a model wrote, and what it means."""

    text: str
    content: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    parallel: bool = False


@dataclass(frozen=True)
class Family:
    """A chat template, and answers with tools offered.

    Attributes:
        template: Jinja source.
        answers: What models of the family write.
        object_arguments: Whether the template wants arguments as objects.
        system: Whether there is a system role.
        own_tools: Whether the template knows nothing of tools.
    """

    template: str
    answers: list[Answer] = field(default_factory=list)
    object_arguments: bool = True
    system: bool = True
    own_tools: bool = False


_HERMES_ANSWERS = [
    Answer("Hello, world! <b>é😀</b>", content="Hello, world! <b>é😀</b>"),
    Answer(
        '<tool_call>\n{"name": "get_weather", "arguments": {"location": "São \\"Paulo\\"", "unit": "celsius"}}\n'
        "</tool_call>",
        calls=(WEATHER,),
    ),
    Answer(
        'Let me see.\n<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": -4}}\n</tool_call>',
        content="Let me see.\n",
        calls=(ADD,),
    ),
    Answer('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', calls=(NOW,)),
    Answer(
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": -4}}\n</tool_call>',
        calls=(NOW, ADD),
        parallel=True,
    ),
]

QWEN = Family(
    """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nFor each function call, return a json object within <tool_call></tool_call> XML tags:\\n" }}
    {{- '<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.reasoning_content is string and message.reasoning_content %}
            {{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    [
        *_HERMES_ANSWERS,
        Answer("<think>\nIs it 4?\n</think>\n\nYes.", content="Yes.", reasoning="Is it 4?\n"),
        Answer(
            '<think>\nI need a <tool>.\n</think>\n\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
            reasoning="I need a <tool>.\n",
            calls=(NOW,),
        ),
    ],
)

LLAMA3 = Family(
    """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools %}
    {%- set first_user_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
    {{- "Given the following functions, please respond with a JSON for a function call with its proper arguments " }}
    {{- "that best answers the given prompt.\\n\\n" }}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}
    {{- "Do not use variables.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}
        {{- '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {{- message.content }}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    [
        Answer("Hello, world!", content="Hello, world!"),
        Answer(
            '{"name": "get_weather", "parameters": {"location": "São \\"Paulo\\"", "unit": "celsius"}}',
            calls=(WEATHER,),
        ),
        Answer('{"name": "add", "parameters": {"a": 3, "b": -4}}', calls=(ADD,)),
        Answer('{"name": "now", "parameters": {}}', calls=(NOW,)),
    ],
)

MISTRAL = Family(
    """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS][" }}
            {%- for tool in tools %}
                {{- '{"type": "function", "function": ' }}
                {{- tool.function | tojson }}
                {{- "}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
            {%- endfor %}
            {{- "][/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS][" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function | tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id | length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"] + eos_token }}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS]{"content": ' + message.content | string + ', ' }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
""",
    [
        Answer("Hello, world!", content="Hello, world!"),
        Answer(
            '[TOOL_CALLS][{"name": "get_weather", "arguments": {"location": "São \\"Paulo\\"", "unit": "celsius"}, '
            '"id": "abcdef123"}]',
            calls=(WEATHER,),
        ),
        Answer('[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "abcdef123"}]', calls=(NOW,)),
    ],
)

GEMMA = Family(
    """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {{ raise_exception('System role not supported') }}
{%- endif -%}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = 'model' -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
""",
    _HERMES_ANSWERS,
    system=False,
    own_tools=True,
)

DEEPSEEK = Family(
    """\
{%- if not add_generation_prompt is defined -%}{%- set add_generation_prompt = false -%}{%- endif -%}
{%- set ns = namespace(is_first=false, is_output_first=true, system_prompt='') -%}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}
        {%- set ns.system_prompt = ns.system_prompt + message['content'] -%}
    {%- endif -%}
{%- endfor -%}
{{- bos_token -}}
{{- ns.system_prompt -}}
{%- if tools -%}
    {{- '\\n\\n## Tools\\n' -}}
    {%- for tool in tools -%}
        {{- '\\n### ' + tool.function.name + '\\n' + tool | tojson + '\\n' -}}
    {%- endfor -%}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- '<｜User｜>' + message['content'] -}}
    {%- elif message['role'] == 'assistant' and message['tool_calls'] is defined -%}
        {{- '<｜Assistant｜>' + (message['content'] or '') + '<｜tool▁calls▁begin｜>' -}}
        {%- for tool in message['tool_calls'] -%}
            {%- if not loop.first -%}{{- '\\n' -}}{%- endif -%}
            {{- '<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n' -}}
            {{- '```json' + '\\n' + tool['function']['arguments'] | tojson + '\\n' + '```' + '<｜tool▁call▁end｜>' -}}
        {%- endfor -%}
        {{- '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- '<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>' -}}
    {%- elif message['role'] == 'tool' -%}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' -%}
            {{- '<｜tool▁outputs▁begin｜>' -}}
        {%- endif -%}
        {{- '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' -}}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}
            {{- '<｜tool▁outputs▁end｜>' -}}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1].role != 'tool' -%}
    {{- '<｜Assistant｜>' -}}
{%- endif -%}
""",
    [
        Answer("Hello, world!", content="Hello, world!"),
        Answer(
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
            '{"location": "São \\"Paulo\\"", "unit": "celsius"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            calls=(WEATHER,),
        ),
        Answer(
            "I add.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n"
            '{"a": 3, "b": -4}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            content="I add.",
            calls=(ADD,),
        ),
    ],
)

COMMAND_R = Family(
    """\
{{- bos_token -}}
<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble
{%- if tools %}

You have been trained to have advanced reasoning and tool-use capabilities.

## Available Tools
```json
[
{%- for tool in tools %}
    {"name": "{{ tool.function.name }}", "description": {{ tool.function.description | tojson }}, {# -#}
    "parameters": {{ tool.function.parameters | tojson }}}{{ "," if not loop.last }}
{%- endfor %}
]
```
{%- endif %}
{%- if messages[0].role == 'system' %}

# Developer Preamble
{{ messages[0].content }}
{%- endif -%}
<|END_OF_TURN_TOKEN|>
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        <|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{ message.content }}<|END_OF_TURN_TOKEN|>
    {%- elif message.role == 'assistant' -%}
        <|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>
        {%- if message.tool_calls -%}
            {%- if message.reasoning_content -%}
                <|START_THINKING|>{{ message.reasoning_content }}<|END_THINKING|>
            {%- endif -%}
            <|START_ACTION|>[
            {%- for call in message.tool_calls %}
    {"tool_call_id": "{{ call.id }}", "tool_name": "{{ call.function.name }}", {# -#}
    "parameters": {{ call.function.arguments | tojson }}}{{ "," if not loop.last }}
            {%- endfor %}
]<|END_ACTION|>
        {%- else -%}
            {%- if message.reasoning_content -%}
                <|START_THINKING|>{{ message.reasoning_content }}<|END_THINKING|>
            {%- endif -%}
            <|START_RESPONSE|>{{ message.content }}<|END_RESPONSE|>
        {%- endif -%}
        <|END_OF_TURN_TOKEN|>
    {%- elif message.role == 'tool' -%}
        <|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>[
    {"tool_call_id": "{{ message.tool_call_id }}", "results": {{ message.content | tojson }}}
]<|END_TOOL_RESULT|><|END_OF_TURN_TOKEN|>
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    <|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>
{%- endif -%}
""",
    [
        Answer("<|START_RESPONSE|>Hello, world!<|END_RESPONSE|>", content="Hello, world!"),
        Answer(
            "<|START_THINKING|>I look it up.<|END_THINKING|><|START_ACTION|>[\n"
            '    {"tool_call_id": "0", "tool_name": "get_weather", '
            '"parameters": {"location": "São \\"Paulo\\"", "unit": "celsius"}}\n]<|END_ACTION|>',
            reasoning="I look it up.",
            calls=(WEATHER,),
        ),
    ],
)

GPT_OSS = Family(
    """\
{%- macro render_tool(tool) -%}
    {{- "// " + tool.description + "\\n" }}
    {{- "type " + tool.name + " = (_: " + tool.parameters | tojson + ") => any;\\n\\n" }}
{%- endmacro -%}
{{- "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\\n\\nReasoning: " }}
{{- (reasoning_effort or "medium") + "\\n\\n# Valid channels: analysis, commentary, final." }}
{%- if tools %}
    {{- "\\nCalls to these tools must go to the commentary channel: 'functions'." }}
{%- endif %}
{{- "<|end|>" }}
{%- set developer = messages[0].content if messages[0].role in ["system", "developer"] else "" %}
{%- if developer or tools %}
    {{- "<|start|>developer<|message|>" }}
    {%- if developer %}
        {{- "# Instructions\\n\\n" + developer + "\\n\\n" }}
    {%- endif %}
    {%- if tools %}
        {{- "# Tools\\n\\n## functions\\n\\nnamespace functions {\\n\\n" }}
        {%- for tool in tools %}
            {{- render_tool(tool.function) }}
        {%- endfor %}
        {{- "} // namespace functions" }}
    {%- endif %}
    {{- "<|end|>" }}
{%- endif %}
{%- set ns = namespace(last=none) %}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- "<|start|>user<|message|>" + message.content + "<|end|>" }}
    {%- elif message.role == "assistant" %}
        {%- if message.thinking %}
            {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- set call = message.tool_calls[0].function %}
            {%- set ns.last = call.name %}
            {{- "<|start|>assistant to=functions." + call.name + "<|channel|>commentary json<|message|>" }}
            {{- call.arguments | tojson + "<|call|>" }}
        {%- else %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}
        {%- endif %}
    {%- elif message.role == "tool" %}
        {{- "<|start|>functions." + ns.last + " to=assistant<|channel|>commentary<|message|>" }}
        {{- message.content | tojson + "<|end|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|start|>assistant" }}
{%- endif %}
""",
    [
        Answer("<|channel|>final<|message|>Hello, world!", content="Hello, world!"),
        Answer(
            "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>It is 4.",
            content="It is 4.",
            reasoning="Easy.",
        ),
        Answer(
            "<|channel|>analysis<|message|>Look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather"
            ' <|constrain|>json<|message|>{"location": "São \\"Paulo\\"", "unit": "celsius"}',
            reasoning="Look.",
            calls=(WEATHER,),
        ),
        Answer("<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}", calls=(NOW,)),
    ],
)

QWEN_CODER = Family(
    """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen.' }}
{%- endif %}
{%- if tools %}
    {{- "\\n\\n# Tools\\n\\nYou have access to the following functions:\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" + tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nTo call a function, reply:\\n\\n<tool_call>\\n<function=example_function_name>\\n" }}
    {{- "<parameter=example_parameter_1>\\nvalue_1\\n</parameter>\\n</function>\\n</tool_call>" }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n<function=' + call.function.name + '>\\n' }}
            {%- for name, value in call.function.arguments | items %}
                {{- '<parameter=' + name + '>\\n' }}
                {{- value if value is string else value | tojson }}
                {{- '\\n</parameter>\\n' }}
            {%- endfor %}
            {{- '</function>\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    [
        Answer("Hello, world!", content="Hello, world!"),
        Answer(
            '<tool_call>\n<function=get_weather>\n<parameter=location>\nSão "Paulo"\n</parameter>\n'
            "<parameter=unit>\ncelsius\n</parameter>\n</function>\n</tool_call>",
            calls=(WEATHER,),
        ),
        Answer(
            "<tool_call>\n<function=add>\n<parameter=a>\n3\n</parameter>\n<parameter=b>\n-4\n</parameter>\n</function>\n"
            "</tool_call>",
            calls=(ADD,),
        ),
    ],
)

NO_TOOLS = Family(
    """\
{%- for message in messages %}
{%- if message.role == 'user' %}
{{ '<|user|>\\n' + message.content + eos_token }}
{%- elif message.role == 'system' %}
{{ '<|system|>\\n' + message.content + eos_token }}
{%- elif message.role == 'assistant' %}
{{ '<|assistant|>\\n' + message.content + eos_token }}
{%- endif %}
{%- if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{%- endif %}
{%- endfor %}
""",
    _HERMES_ANSWERS,
    own_tools=True,
)

FAMILIES = {
    "qwen": QWEN,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "deepseek": DEEPSEEK,
    "command-r": COMMAND_R,
    "gpt-oss": GPT_OSS,
    "qwen-coder": QWEN_CODER,
    "no-tools": NO_TOOLS,
}
