// Chats by llama.cpp's common/chat.h, behind plain types: that header takes seconds to compile.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "llama.h"

struct ChatTemplate;
struct AnswerParser;

/// What a chat template is given. Texts are JSON, in OpenAI's format; `tools` and `json_schema` may be empty.
struct ChatInput {
    std::string messages, tools, tool_choice, json_schema;
    bool parallel_tool_calls, add_generation_prompt, enable_thinking, parse_reasoning, force_pure_content;
    std::map<std::string, std::string> variables; // JSON texts by name
};

/// A rendered chat, and how the answer is constrained and read: the fields of common_chat_params.
struct RenderedChat {
    std::string prompt, format, grammar, generation_prompt, thinking_start_tag, parser_text;
    bool grammar_lazy, supports_thinking;
    std::vector<std::pair<std::string, std::string>> grammar_triggers; // kind and text
    std::vector<std::string> thinking_end_tags, preserved_tokens, additional_stops;
    std::shared_ptr<const AnswerParser> parser;
};

struct ToolCall {
    std::string id, name, arguments; // arguments: JSON text
};

struct AnswerMessage {
    std::string content, reasoning;
    std::vector<ToolCall> calls;
};

/// Compiles the template `source`, or if it is empty the templates of the model. To be called without the GIL. Throws
/// std::runtime_error or cyllama::TemplateLimitError if it cannot be compiled.
std::shared_ptr<ChatTemplate> compile_template(const llama_model * model, const std::string & source);

bool is_specialized(const ChatTemplate & chat_template);
bool was_explicit(const ChatTemplate & chat_template);
std::string source_of(const ChatTemplate & chat_template);
std::map<std::string, bool> caps_of(const ChatTemplate & chat_template);

/// Renders a chat. To be called with the GIL, which it releases meanwhile. ValueError for texts that are not JSON, an
/// unknown tool choice and references that cannot be resolved; std::runtime_error or cyllama::TemplateLimitError if the
/// template refuses the chat.
RenderedChat render_chat(ChatTemplate & chat_template, const ChatInput & input);

/// Returns a copy with another parser, which load_parser() takes. To be called without the GIL.
RenderedChat with_parser(const RenderedChat & chat, const std::string & parser_text);

/// Reads an answer, or its beginning if it `is_partial`. To be called without the GIL. Throws std::runtime_error for text
/// that does not fit the format.
AnswerMessage parse_answer(const RenderedChat & chat, const std::string & text, bool is_partial);
