"""Short templates with the formats of tool calls that llama.cpp knows, written from what is published of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Native:
    """A template that writes calls.

    Attributes:
        template: Jinja source.
        end: What an answer ends with in a history.
        parallel: Whether one answer may have several calls.
        raw: Whether strings are written as they are.
        keys: Which names of arguments it can write: "any", or "words" of letters, digits and underscores.
        refused: Texts that no string may contain where it is written as it is.
    """

    template: str
    end: str = ""
    parallel: bool = True
    raw: bool = False
    keys: str = "any"
    refused: tuple[str, ...] = ()


_CHATML = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' + TOOLS + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and message.reasoning_content %}
        {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content }}
    {%- if message.tool_calls %}
CALLS
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def _chatml(calls: str, tools: str = "tools | tojson") -> str:
    return _CHATML.replace("CALLS", calls.rstrip("\n")).replace("TOOLS", tools)


_VALUE = "(value if value is string else value | tojson)"
_TAGGED = """\
        {%- for call in message.tool_calls %}
            {{- OPEN }}
            {%- for name, value in call.function.arguments | items %}
                {{- ARGUMENT }}
            {%- endfor %}
            {{- CLOSE }}
        {%- endfor %}
"""


def _tagged(opening: str, argument: str, closing: str) -> str:
    argument = argument.replace("VALUE", _VALUE)
    return _TAGGED.replace("OPEN", opening).replace("ARGUMENT", argument).replace("CLOSE", closing)


_JSON_LIST = """\
        {{- BEFORE + '[' }}
        {%- for call in message.tool_calls %}
            {{- ONE }}
            {%- if not loop.last %}{{- ', ' }}{%- endif %}
        {%- endfor %}
        {{- ']' + AFTER }}
"""
_NAMED = "'{\"name\": \"' + call.function.name + '\", \"arguments\": ' + call.function.arguments | tojson + '}'"


def _json_list(before: str, after: str, call: str = _NAMED) -> str:
    return _JSON_LIST.replace("BEFORE", before).replace("AFTER", after).replace("ONE", call)


GLM = """\
{{- '[gMASK]<sop>' }}
{%- if tools -%}
    {{- '<|system|>\\n# Tools\\n<tools>\\n' + tools | tojson + '\\n</tools>\\n<tool_call>{function-name}' -}}
    {{- '\\n<arg_key>{arg-key-1}</arg_key>\\n<arg_value>{arg-value-1}</arg_value>\\n</tool_call>' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- '<|user|>\\n' + message.content -}}
    {%- elif message.role == 'assistant' -%}
        {{- '<|assistant|>' -}}
        {{- '\\n<think>' + (message.reasoning_content or '') + '</think>' -}}
        {%- if message.content -%}{{- '\\n' + message.content -}}{%- endif -%}
        {%- for call in message.tool_calls or [] -%}
            {{- '\\n<tool_call>' + call.function.name + '\\n' -}}
            {%- for name, value in call.function.arguments | items -%}
                {{- '<arg_key>' + name + '</arg_key>\\n<arg_value>' -}}
                {{- value if value is string else value | tojson -}}
                {{- '</arg_value>\\n' -}}
            {%- endfor -%}
            {{- '</tool_call>' -}}
        {%- endfor -%}
    {%- elif message.role == 'tool' -%}
        {{- '<|observation|>\\n<tool_response>\\n' + message.content + '\\n</tool_response>' -}}
    {%- else -%}
        {{- '<|system|>\\n' + message.content -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>' + ('\\n<think></think>' if enable_thinking is defined and not enable_thinking else '') -}}
{%- endif -%}
"""

MISTRAL_SMALL = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '[INST]' + message.content + '[/INST]' }}
    {%- elif message.role == 'system' %}
        {{- '[SYSTEM_PROMPT]' + message.content + '[/SYSTEM_PROMPT]' }}
    {%- elif message.role == 'assistant' %}
        {%- if message.content %}{{- message.content }}{%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if call.id | length != 9 %}{{- raise_exception('Tool call IDs have 9 letters.') }}{%- endif %}
            {{- '[TOOL_CALLS]' + call.function.name + '[CALL_ID]' + call.id }}
            {{- '[ARGS]' + call.function.arguments | tojson }}
        {%- endfor %}
        {{- eos_token }}
    {%- else %}
        {{- '[TOOL_RESULTS]' + message.tool_call_id + '[TOOL_CONTENT]' + message.content + '[/TOOL_RESULTS]' }}
    {%- endif %}
    {%- if loop.first and tools %}
        {{- '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}
    {%- endif %}
{%- endfor %}
"""

LFM2 = """\
{%- if tools -%}
    {{- '<|im_start|>system\\nList of tools: <|tool_list_start|>' + tools | tojson -}}
    {{- '<|tool_list_end|><|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

DSML = """\
{%- set dsml_token = '｜DSML｜' -%}
{%- if tools -%}{{- '## Tools\\n' + tools | tojson + '\\n<｜DSML｜function_calls>' -}}{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- '<｜User｜>' + message.content -}}
    {%- elif message.role == 'assistant' -%}
        {{- '<｜Assistant｜>' + '<think>' + (message.reasoning_content or '') + '</think>' + message.content -}}
        {%- if message.tool_calls -%}
            {{- '\\n\\n<' + dsml_token + 'function_calls>\\n' -}}
            {%- for call in message.tool_calls -%}
                {{- '<' + dsml_token + 'invoke name="' + call.function.name + '">\\n' -}}
                {%- for name, value in call.function.arguments | items -%}
                    {{- '<' + dsml_token + 'parameter name="' + name + '" string="' -}}
                    {{- ('true' if value is string else 'false') + '">' -}}
                    {{- (value if value is string else value | tojson) + '</' + dsml_token + 'parameter>\\n' -}}
                {%- endfor -%}
                {{- '</' + dsml_token + 'invoke>\\n' -}}
            {%- endfor -%}
            {{- '</' + dsml_token + 'function_calls>' -}}
        {%- endif -%}
        {{- '<｜end▁of▁sentence｜>' -}}
    {%- else -%}
        {{- '<function_results>' + message.content + '</function_results>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<｜Assistant｜><think>' + ('' if enable_thinking else '</think>') -}}{%- endif -%}
"""

KIMI_K2 = """\
{%- if tools -%}{{- '<|im_system|>tool_declare<|im_middle|>' + tools | tojson + '<|im_end|>' -}}{%- endif -%}
{%- for message in messages -%}
    {{- '<|im_' + message.role + '|>' + message.role + '<|im_middle|>' -}}
    {%- if message.role == 'tool' -%}{{- '## Return of ' + message.tool_call_id + '\\n' -}}{%- endif -%}
    {%- if message.content -%}{{- message.content -}}{%- endif -%}
    {%- if message.tool_calls -%}
        {{- '<|tool_calls_section_begin|>' -}}
        {%- for call in message.tool_calls -%}
            {{- '<|tool_call_begin|>' + call.id + '<|tool_call_argument_begin|>' -}}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson -}}
            {{- '<|tool_call_end|>' -}}
        {%- endfor -%}
        {{- '<|tool_calls_section_end|>' -}}
    {%- endif -%}
    {{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_assistant|>assistant<|im_middle|>' -}}{%- endif -%}
"""

KIMI_K3 = """\
{%- macro open_tag(tag) -%}{{- '<|open|>' + tag + '<|sep|>' -}}{%- endmacro -%}
{%- macro close_tag(tag) -%}{{- '<|close|>' + tag + '<|sep|>' -}}{%- endmacro -%}
{%- if tools -%}{{- open_tag('message role="system" kind="tools"') + tools | tojson -}}
    {{- close_tag('message') + '<|end_of_msg|>' -}}{%- endif -%}
{%- for message in messages -%}
    {{- open_tag('message role="' + message.role + '"') -}}
    {%- if message.role == 'assistant' -%}
        {{- open_tag('think') + (message.reasoning_content or '') + close_tag('think') -}}
        {{- open_tag('response') + message.content + close_tag('response') -}}
        {%- if message.tool_calls -%}
            {{- open_tag('tools') -}}
            {%- for call in message.tool_calls -%}
                {{- open_tag('call tool="' + call.function.name + '" index="' + loop.index0 | string + '"') -}}
                {%- for name, value in call.function.arguments | items -%}
                    {%- set kind = 'string' if value is string else 'json' -%}
                    {{- open_tag('argument key="' + name + '" type="' + kind + '"') -}}
                    {{- value if value is string else value | tojson -}}
                    {{- close_tag('argument') -}}
                {%- endfor -%}
                {{- close_tag('call') -}}
            {%- endfor -%}
            {{- close_tag('tools') -}}
        {%- endif -%}
    {%- else -%}
        {{- message.content -}}
    {%- endif -%}
    {{- close_tag('message') + '<|end_of_msg|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- open_tag('message role="assistant"') + open_tag('think') -}}{%- endif -%}
"""

MINISTRAL = """\
{{- bos_token }}
{%- if tools %}{{- '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '[INST]' + message.content + '[/INST]' }}
    {%- elif message.role == 'system' %}
        {{- '[SYSTEM_PROMPT]' + (message.content if message.content is string else message.content[0].text) }}
        {{- '[/SYSTEM_PROMPT]' }}
    {%- elif message.role == 'assistant' %}
        {%- if message.content is string %}{{- message.content }}
        {%- else %}
            {%- for block in message.content %}
                {{- block.text if block.type == 'text' else '[THINK]' + block.thinking + '[/THINK]' }}
            {%- endfor %}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' }}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
        {%- endfor %}
        {{- eos_token }}
    {%- else %}
        {{- '[TOOL_RESULTS]' + message.content + '[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
"""

FUNCTIONARY_32 = """\
{%- if tools -%}{{- '## Tools, by >>>${recipient}\\n' + tools | tojson -}}{%- endif -%}
{%- for message in messages -%}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- if message.content -%}{{- '>>>all\\n' + message.content -}}{%- endif -%}
        {%- for call in message.tool_calls or [] -%}
            {{- '>>>' + call.function.name + '\\n' + call.function.arguments -}}
        {%- endfor -%}
    {%- else -%}
        {{- message.content -}}
    {%- endif -%}
    {{- '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n>>>' -}}{%- endif -%}
"""

GIGACHAT = """\
{%- if tools -%}{{- 'developer<|role_sep|>\\n' + tools | tojson + '<|message_sep|>\\n\\n' -}}{%- endif -%}
{%- for message in messages -%}
    {{- message.role + '<|role_sep|>\\n' + message.content -}}
    {%- if message.tool_calls -%}
        {%- for call in message.tool_calls -%}
            {{- '<|message_sep|>\\n\\nfunction call<|role_sep|>\\n{"name": "' + call.function.name -}}
            {{- '", "arguments": ' -}}
            {{- call.function.arguments | tojson + '}' -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|message_sep|>\\n\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'assistant<|role_sep|>\\n' -}}{%- endif -%}
"""

GEMMA4 = """\
{#- OpenAI Chat Completions: messages as they are. -#}
{%- macro write(value) -%}
    {%- if value is string -%}{{- '<|"|>' + value + '<|"|>' -}}
    {%- elif value is mapping -%}
        {{- '{' -}}
        {%- for name, item in value | items -%}
            {{- name + ':' -}}{{- write(item) -}}{%- if not loop.last -%}{{- ',' -}}{%- endif -%}
        {%- endfor -%}
        {{- '}' -}}
    {%- elif value is sequence -%}
        {{- '[' -}}
        {%- for item in value -%}{{- write(item) -}}{%- if not loop.last -%}{{- ',' -}}{%- endif -%}{%- endfor -%}
        {{- ']' -}}
    {%- else -%}{{- value | tojson -}}{%- endif -%}
{%- endmacro -%}
{%- if tools -%}{{- '<|turn>system\\n<|tool>' + tools | tojson + '<tool|><turn|>\\n' -}}{%- endif -%}
{%- for message in messages -%}
    {{- '<|turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}
    {{- message.content -}}
    {%- for call in message.tool_calls or [] -%}
        {{- '<|tool_call>call:' + call.function.name -}}{{- write(call.function.arguments) -}}{{- '<tool_call|>' -}}
    {%- endfor -%}
    {{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\\n' -}}{%- endif -%}
"""

MUSE = """\
{%- if tools -%}{{- '<|start|>system<|message|>' + tools | tojson + '<atem:function_calls><|eom|>' -}}{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if message.reasoning_content -%}
            {{- '<|start|>assistant to=self<|message|>' + message.reasoning_content + '<|eom|>' -}}
        {%- endif -%}
        {%- if message.content or not message.tool_calls -%}
            {{- '<|start|>assistant to=user<|message|>' + message.content -}}
            {{- '<|eom|>' if message.tool_calls else '<|eot|>' -}}
        {%- endif -%}
        {%- for call in message.tool_calls or [] -%}
            {{- '<|start|>assistant to=functions.' + call.function.name + '<|message|><atem:function_calls>\\n' -}}
            {{- '<atem:invoke name="' + call.function.name + '">\\n' -}}
            {%- for name, value in call.function.arguments | items -%}
                {{- '<atem:parameter name="' + name + '">' + (value if value is string else value | tojson) -}}
                {{- '</atem:parameter>\\n' -}}
            {%- endfor -%}
            {{- '</atem:invoke>\\n</atem:function_calls>' + ('<|eot|>' if loop.last else '<|eom|>') -}}
        {%- endfor -%}
    {%- else -%}
        {{- '<|start|>' + message.role + '<|message|>' + message.content + '<|eot|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}
"""

MINIMAX_M3 = """\
{%- macro to_xml(value) -%}
    {%- if value is mapping -%}
        {%- for name, item in value | items -%}
            {{- ']<]minimax[>[<' + name + '>' -}}{{- to_xml(item) -}}{{- ']<]minimax[>[</' + name + '>' -}}
        {%- endfor -%}
    {%- elif value is string -%}{{- value -}}
    {%- elif value is sequence -%}
        {%- for item in value -%}
            {{- ']<]minimax[>[<item>' -}}{{- to_xml(item) -}}{{- ']<]minimax[>[</item>' -}}
        {%- endfor -%}
    {%- else -%}{{- value | tojson -}}{%- endif -%}
{%- endmacro -%}
{%- if tools -%}{{- ']~b]developer\\n' + tools | tojson + '\\n<tool_call>' -}}{%- endif -%}
{%- for message in messages -%}
    {{- ']~b]' + ('ai' if message.role == 'assistant' else message.role) + '\\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- if message.reasoning_content -%}{{- '<mm:think>' + message.reasoning_content -}}{%- endif -%}
        {{- '</mm:think>' -}}
    {%- endif -%}
    {{- message.content -}}
    {%- if message.tool_calls -%}
        {{- ']<]minimax[>[<tool_call>\\n' -}}
        {%- for call in message.tool_calls -%}
            {{- ']<]minimax[>[<invoke name="' + call.function.name + '">' -}}{{- to_xml(call.function.arguments) -}}
            {{- ']<]minimax[>[</invoke>\\n' -}}
        {%- endfor -%}
        {{- ']<]minimax[>[</tool_call>' -}}
    {%- endif -%}
    {{- '[e~[\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ']~b]ai\\n' -}}{%- endif -%}
"""

_DEEPSEEK_V31 = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- '<｜User｜>' + message.content -}}
    {%- elif message.role == 'assistant' -%}
        {{- '<｜Assistant｜></think>' + message.content -}}
        {%- if message.tool_calls -%}
            {{- '<｜tool▁calls▁begin｜>' -}}
            {%- for call in message.tool_calls -%}
                {{- '<｜tool▁call▁begin｜>' + call.function.name + '<｜tool▁sep｜>' -}}
                {%- set arguments = call.function.arguments -%}
                {{- arguments if arguments is string else arguments | tojson -}}
                {{- '<｜tool▁call▁end｜>' -}}
            {%- endfor -%}
            {{- '<｜tool▁calls▁end｜>' -}}
        {%- endif -%}
        {{- '<｜end▁of▁sentence｜>' -}}
    {%- elif message.role == 'tool' -%}
        {{- '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' -}}
    {%- else -%}
        {{- message.content -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<｜Assistant｜></think>' -}}{%- endif -%}
"""

# With the words that llama.cpp knows the template by.
_DEEPSEEK_R1 = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- '<｜User｜>' + message['content'] -}}
    {%- elif message['role'] == 'assistant' and message['tool_calls'] is defined -%}
        {%- for tool in message['tool_calls'] -%}
            {%- if loop.first -%}
                {{'<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' -}}
            {%- else -%}
                {{- '\\n<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' -}}
            {%- endif -%}
            {{- tool['function']['name'] + '\\n```json\\n' + tool['function']['arguments'] -}}
            {{- '\\n```<｜tool▁call▁end｜>' -}}
        {%- endfor -%}
        {{- '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' -}}
    {%- elif message['role'] == 'assistant' -%}
        {%- set content = message['content'] -%}
        {{- '<｜Assistant｜>' + content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' -}}
    {%- elif message['role'] == 'tool' -%}
        {{- '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' -}}
    {%- else -%}
        {{- message['content'] -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}
"""
#: Like the first templates of Gemma 4, for which llama.cpp makes results a part of the call's message.
OLD_GEMMA4 = GEMMA4.replace("{#- OpenAI Chat Completions: messages as they are. -#}\n", "").replace(
    "    {{- '<turn|>\\n' -}}\n{%- endfor",
    """\
    {%- for one in message.tool_responses or [] -%}
        {{- '<|tool_response>response:' + one.name + '{value:' -}}{{- write(one.response) -}}{{- '}<tool_response|>' -}}
    {%- endfor -%}
    {{- '<turn|>\\n' -}}\n{%- endfor""",
)

_QWEN_CODER = _tagged(
    "'\\n<tool_call>\\n<function=' + call.function.name + '>\\n'",
    "'<parameter=' + name + '>\\n' + VALUE + '\\n</parameter>\\n'",
    "'</function>\\n</tool_call>'",
)
_SEED = _tagged(
    "'\\n<seed:tool_call>\\n<function=' + call.function.name + '>\\n'",
    "'<parameter=' + name + '>' + VALUE + '</parameter>\\n'",
    "'</function>\\n</seed:tool_call>'",
)
_MINIMAX_M2 = (
    """\
        {{- '\\n<minimax:tool_call>\\n' }}
"""
    + _tagged(
        "'<invoke name=\"' + call.function.name + '\">\\n'",
        "'<parameter name=\"' + name + '\">' + VALUE + '</parameter>\\n'",
        "'</invoke>\\n'",
    )
    + """\
        {{- '</minimax:tool_call>' }}
"""
)
_MINICPM5 = _tagged(
    "'<function name=\"' + call.function.name + '\">'",
    "'<param name=\"' + name + '\">' + VALUE + '</param>'",
    "'</function>'",
)
_IM_END = "<|im_end|>\n"

_APRIEL = _json_list("'<tool_calls>'", "'</tool_calls>'")
_HERMES = """\
        {%- for call in message.tool_calls %}
            {%- if not loop.first or message.content %}{{- '\\n' }}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson + '}\\n</tool_call>' }}
        {%- endfor %}
"""
_FUNCTIONARY_31 = """\
        {%- for call in message.tool_calls %}
            {{- '<function=' + call.function.name + '>' + call.function.arguments | tojson + '</function>' }}
        {%- endfor %}
"""
_CODE_INTERPRETER = (
    '{%- set has_code_interpreter = tools | selectattr("type", "equalto", "code_interpreter")'
    " | list | length > 0 if tools else false -%}\n"
)
_STEP = _tagged(
    "'<tool_call>\\n<function=' + call.function.name + '>\\n'",
    "'<parameter=' + name + '>\\n' + VALUE + '\\n</parameter>\\n'",
    "'</function>\\n</tool_call>\\n'",
)
# Without the line breaks, as the model writes it.
_LAGUNA = "{#- laguna_glm_thinking -#}\n" + GLM
for _old, _new in {
    "\\n<": "<",
    "function.name + '\\n'": "function.name",
    "</arg_value>\\n": "</arg_value>",
    "'\\n' + message.content": "message.content",
}.items():
    _LAGUNA = _LAGUNA.replace(_old, _new)
_BAILING = "{#- Bailing V3 chat template -#}\n" + GLM

_GRANITE_33 = (
    "{#- Write your thoughts between <think></think> and write your response between <response></response> -#}\n"
    + _chatml(_json_list("'<|tool_call|>'", "''"))
)
_COMMAND_R_CALL = (
    '\'    {\\n        "tool_name": "\' + call.function.name + \'",\\n        "parameters": \''
    " + call.function.arguments | tojson + '\\n    }'"
)
COMMAND_R_PLUS = """\
{{- bos_token -}}
{%- if tools -%}
    {{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + tools | tojson + '<|END_OF_TURN_TOKEN|>' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + message.content + '<|END_OF_TURN_TOKEN|>' -}}
    {%- elif message.role == 'assistant' -%}
        {{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + message.content -}}
        {%- if message.tool_calls -%}
            {{- '\\nAction:\\n```json\\n[\\n' -}}
            {%- for call in message.tool_calls -%}
                {{- CALL -}}
                {%- if not loop.last -%}{{- ',\\n' -}}{%- endif -%}
            {%- endfor -%}
            {{- '\\n]\\n```' -}}
        {%- endif -%}
        {{- '<|END_OF_TURN_TOKEN|>' -}}
    {%- else -%}
        {{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + message.content + '<|END_OF_TURN_TOKEN|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' -}}{%- endif -%}
""".replace("CALL -", f"{_COMMAND_R_CALL} -")

COHERE2_MOE = """\
{{- bos_token -}}
{%- if tools -%}
    {{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + tools | tojson + '<|END_OF_TURN_TOKEN|>' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + message.content + '<|END_OF_TURN_TOKEN|>' -}}
    {%- elif message.role == 'tool' -%}
        {{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>' + message.content -}}
        {{- '<|END_TOOL_RESULT|><|END_OF_TURN_TOKEN|>' -}}
    {%- elif message.role == 'assistant' -%}
        {{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>' -}}
        {{- (message.reasoning_content or '') + '<|END_THINKING|>' -}}
        {%- if message.tool_calls -%}
            {{- '<|START_ACTION|>[' -}}
            {%- for call in message.tool_calls -%}
                {{- '{"tool_call_id": "' + loop.index0 | string + '", "tool_name": "' + call.function.name -}}
                {{- '", "parameters": ' + call.function.arguments | tojson + '}' -}}
                {%- if not loop.last -%}{{- ', ' -}}{%- endif -%}
            {%- endfor -%}
            {{- ']<|END_ACTION|>' -}}
        {%- else -%}
            {{- '<|START_TEXT|>' + message.content + '<|END_TEXT|>' -}}
        {%- endif -%}
        {{- '<|END_OF_TURN_TOKEN|>' -}}
    {%- else -%}
        {{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + message.content + '<|END_OF_TURN_TOKEN|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>' -}}
{%- endif -%}
"""

COMMAND_R7B = """\
{{- bos_token -}}
{%- if tools -%}
    {{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + tools | tojson + '<|END_OF_TURN_TOKEN|>' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + message.content + '<|END_OF_TURN_TOKEN|>' -}}
    {%- elif message.role == 'tool' -%}
        {{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>' + message.content -}}
        {{- '<|END_TOOL_RESULT|><|END_OF_TURN_TOKEN|>' -}}
    {%- elif message.role == 'assistant' -%}
        {{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' -}}
        {%- if message.reasoning_content -%}
            {{- '<|START_THINKING|>' + message.reasoning_content + '<|END_THINKING|>' -}}
        {%- endif -%}
        {%- if message.tool_calls -%}
            {{- '<|START_ACTION|>[\\n' -}}
            {%- for call in message.tool_calls -%}
                {{- '    {"tool_call_id": "' + loop.index0 | string + '", "tool_name": "' + call.function.name -}}
                {{- '", "parameters": ' + call.function.arguments | tojson + '}' -}}
                {%- if not loop.last -%}{{- ',\\n' -}}{%- endif -%}
            {%- endfor -%}
            {{- '\\n]<|END_ACTION|>' -}}
        {%- else -%}
            {{- '<|START_RESPONSE|>' + message.content + '<|END_RESPONSE|>' -}}
        {%- endif -%}
        {{- '<|END_OF_TURN_TOKEN|>' -}}
    {%- else -%}
        {{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + message.content + '<|END_OF_TURN_TOKEN|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' -}}{%- endif -%}
"""

# LFM2 and LFM2.5 write calls as Python does.
_PYTHON = """\
        {{- '<|tool_call_start|>[' }}
        {%- for call in message.tool_calls %}
            {{- call.function.name + '(' }}
            {%- for name, value in call.function.arguments | items %}
                {{- name + '=' + value | tojson }}
                {%- if not loop.last %}{{- ', ' }}{%- endif %}
            {%- endfor %}
            {{- ')' }}
            {%- if not loop.last %}{{- ', ' }}{%- endif %}
        {%- endfor %}
        {{- ']<|tool_call_end|>' }}
"""
_LFM25 = _chatml(_PYTHON, "'List of tools: [' + tools | tojson + ']'")
_LFM2_CALLS = _chatml(_PYTHON, "'List of tools: <|tool_list_start|>' + tools | tojson + '<|tool_list_end|>'")

NATIVE = {
    "qwen-coder": Native(_chatml(_QWEN_CODER), _IM_END, raw=True, refused=("\n</parameter>\n",)),
    "seed-oss": Native(_chatml(_SEED), _IM_END, raw=True, refused=("</parameter>",)),
    "minimax-m2": Native(_chatml(_MINIMAX_M2), _IM_END, raw=True, refused=("</parameter>",)),
    "minicpm5": Native(
        _chatml(_MINICPM5, "'Tool usage guidelines:\\n' + tools | tojson"), _IM_END, raw=True, refused=("</param>",)
    ),
    "glm": Native(GLM, raw=True, refused=("</arg_value>",)),
    "deepseek-v3.2": Native(DSML, "<｜end▁of▁sentence｜>", raw=True, refused=("</｜DSML｜parameter>",)),
    "kimi-k3": Native(KIMI_K3, "<|end_of_msg|>", raw=True, refused=("<|",)),
    "muse-glimmer": Native(MUSE, "<|eot|>", raw=True, refused=("</atem:parameter>", "<|")),
    "minimax-m3": Native(MINIMAX_M3, "[e~[\n", raw=True, keys="words", refused=("]<]",)),
    "gemma4": Native(GEMMA4, "<turn|>\n", raw=True, keys="words", refused=('<|"|>', "<|")),
    "mistral-small-3.2": Native(MISTRAL_SMALL, "<|im_end|>"),
    "ministral": Native(MINISTRAL, "<|im_end|>"),
    "kimi-k2": Native(KIMI_K2, "<|im_end|>"),
    "functionary-3.2": Native(FUNCTIONARY_32, "<|eot_id|>"),
    "gigachat": Native(GIGACHAT, "<|message_sep|>\n\n", parallel=False),
    "deepseek-v3.1": Native(_DEEPSEEK_V31, "<｜end▁of▁sentence｜>"),
    "deepseek-r1": Native(_DEEPSEEK_R1, "<｜end▁of▁sentence｜>"),
    "nemotron": Native(_chatml(_json_list("'<TOOLCALL>'", "'</TOOLCALL>'")), _IM_END),
    "granite": Native(_chatml(_json_list("'<|tool_call|>'", "''")), _IM_END),
    "firefunction": Native(_chatml(_json_list("' functools'", "''")), _IM_END),
    "apertus": Native(
        _chatml(
            _json_list(
                "'<|tools_prefix|>'",
                "'<|tools_suffix|>'",
                "'{\"' + call.function.name + '\": ' + call.function.arguments | tojson + '}'",
            )
        ),
        _IM_END,
    ),
    "granite-4": Native(_chatml(_HERMES), _IM_END),
    "granite-3.3": Native(_GRANITE_33, _IM_END),
    "command-r-plus": Native(COMMAND_R_PLUS, "<|END_OF_TURN_TOKEN|>"),
    "apriel": Native(_chatml(_APRIEL), _IM_END),
    "functionary-3.1": Native(_CODE_INTERPRETER + _chatml(_FUNCTIONARY_31), _IM_END),
    "step-3.5": Native(_chatml(_STEP), _IM_END, raw=True, refused=("\n</parameter>\n",)),
    "laguna": Native(_LAGUNA, raw=True, refused=("</arg_value>",)),
    "bailing": Native(_BAILING, raw=True, refused=("</arg_value>",)),
    "cohere2-moe": Native(COHERE2_MOE, "<|END_OF_TURN_TOKEN|>"),
    "command-r7b": Native(COMMAND_R7B, "<|END_OF_TURN_TOKEN|>"),
    "lfm2": Native(_LFM2_CALLS, _IM_END, keys="words"),
    "lfm2.5": Native(_LFM25, _IM_END, keys="words"),
}
