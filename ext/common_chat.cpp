#include "common_chat.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "big_stack.hpp"
#include "chat-auto-parser.h"
#include "chat.h"
#include "errors.hpp"
#include "guard.hpp"
#include "json_schema.hpp"
#include "json_text.hpp"
#include "peg.hpp"
#include "template_budget.hpp"

// As in common/chat.cpp, which keeps it to itself. llama.cpp/CMakeLists.txt checks that it is the same.
struct common_chat_templates {
    bool add_bos;
    bool add_eos;
    bool has_explicit_template;
    std::unique_ptr<common_chat_template> template_default;
    std::unique_ptr<common_chat_template> template_tool_use;
};

/// A compiled chat template. Rendering changes the nodes of its program for a moment, so it needs the lock.
struct ChatTemplate : Guarded {
    common_chat_templates_ptr templates;
    size_t source_size = 0;   // bytes
    bool specialized = false; // whether llama.cpp handles it with code of its own
};

struct AnswerParser {
    common_chat_parser_params params;
};

namespace {

constexpr size_t kStackPerLevel = 64 << 10; // bytes of stack for each level of nested JSON
constexpr size_t kStackPerByte = 16 << 10;  // parser and interpreter recurse as deep as the template's source is nested
constexpr size_t kRecursion = 8 << 20;      // bytes of stack for macros that call each other
// Steps and bytes of memory: a constant part, and a part for each byte of messages and tools. Both are many times what the
// templates of models need. Values that contain each other are freed recursively, with less stack than they take of memory.
constexpr uint64_t kSteps = 20'000'000, kStepsPerByte = 500;
constexpr size_t kMemory = 64 << 20, kMemoryPerByte = 256;

// The first statement of a program: a rendering begins with no memory in use.
struct BeginStatement : jinja::statement {
    BeginStatement() { pos = 0; }
    std::string type() const override { return "Block"; }
    jinja::value execute_impl(jinja::context &) override {
        cyllama::template_begins();
        return jinja::mk_val<jinja::value_undefined>();
    }
};

void add_begin(jinja::program & program) { program.body.insert(program.body.begin(), std::make_unique<BeginStatement>()); }

// Does what the constructor of common_chat_template does, and throws what it would throw.
void try_template(const std::string & source) {
    jinja::lexer lexer;
    jinja::program program = jinja::parse_from_tokens(lexer.tokenize(source));
    add_begin(program);
    jinja::caps_get(program); // catches what the template throws
}

common_chat_templates_ptr compile(const llama_model * model, const std::string & source) {
    const char * plain = source.empty() ? llama_model_chat_template(model, nullptr) : source.c_str();
    const char * with_tools = source.empty() ? llama_model_chat_template(model, "tool_use") : nullptr;
    for (const char * text : {plain, with_tools}) {
        if (text) {
            try_template(text);
        }
    }
    common_chat_templates_ptr templates = common_chat_templates_init(model, source);
    for (auto * one : {templates->template_default.get(), templates->template_tool_use.get()}) {
        if (one) {
            add_begin(one->prog);
        }
    }
    return templates;
}

// Whether llama.cpp knows a template, and handles it with code of its own.
bool handles_itself(const common_chat_template & one) {
    autoparser::generation_params params;
    params.messages = parse_json(R"([{"role": "user", "content": ""}])", "messages");
    params.add_generation_prompt = true;
    try {
        return common_chat_try_specialized_template(one, one.source(), params).has_value();
    } catch (const std::exception &) { // the code for a known template was called, and refused the message
        return true;
    }
}

// Runs `work`, which renders a template of `source_size` bytes with an input of `input_size` bytes, on a stack with `extra`
// bytes more than templates need.
void run_template(size_t source_size, size_t input_size, size_t extra, const std::function<void()> & work) {
    const size_t nested = source_size * kStackPerByte, memory = kMemory + input_size * kMemoryPerByte;
    run_on_big_stack(nested * 2 + kRecursion + extra + memory, [&] {
        cyllama::TemplateBudget budget({nested + kRecursion + kBaseStack / 2, kSteps + input_size * kStepsPerByte, memory});
        try {
            work();
        } catch (const std::exception &) {
            budget.check(); // throws the limit itself, without what the interpreter adds to its message
            throw;
        }
        budget.check();
    });
}

common_chat_tool_choice to_tool_choice(const std::string & name) {
    if (name != "auto" && name != "none" && name != "required") {
        throw_value_error("tool_choice must be 'auto', 'none' or 'required', not '" + name + "'");
    }
    return common_chat_tool_choice_parse_oaicompat(name);
}

// Steps and memory of a rendering grow with the input.
size_t size_of(const ChatInput & input) {
    size_t size = input.messages.size() + input.tools.size() + input.json_schema.size();
    for (const auto & [name, value] : input.variables) {
        size += name.size() + value.size();
    }
    return size;
}

// Bytes of stack for recursions that follow the nesting of the texts, and for regular expressions that follow names.
size_t stack_of(const ChatInput & input) {
    const size_t depth = std::max(
        {nesting_depth(input.messages, true), nesting_depth(input.tools, true), nesting_depth(input.json_schema, true)});
    const size_t names = input.tools.size() + input.json_schema.size();
    return std::min<size_t>(depth, 1000) * kStackPerLevel + names * 1024;
}

common_chat_templates_inputs to_inputs(const ChatInput & input) {
    common_chat_templates_inputs inputs;
    inputs.tool_choice = to_tool_choice(input.tool_choice);
    inputs.json_schema = input.json_schema;
    inputs.parallel_tool_calls = input.parallel_tool_calls;
    inputs.add_generation_prompt = input.add_generation_prompt;
    inputs.enable_thinking = input.enable_thinking;
    inputs.reasoning_format = input.parse_reasoning ? COMMON_REASONING_FORMAT_DEEPSEEK : COMMON_REASONING_FORMAT_NONE;
    inputs.force_pure_content = input.force_pure_content;
    inputs.chat_template_kwargs = input.variables;
    return inputs;
}

// Parses the texts, and checks those that llama.cpp parses itself.
void parse_texts(const ChatInput & input, common_chat_templates_inputs & inputs) {
    inputs.messages = common_chat_msgs_parse_oaicompat(parse_json(input.messages, "messages"));
    if (!input.tools.empty()) {
        const common_json list = parse_json(input.tools, "tools");
        check_references(list);
        inputs.tools = common_chat_tools_parse_oaicompat(list);
        for (const auto & tool : inputs.tools) {
            check_references(common_json::parse(tool.parameters));
        }
    }
    if (!input.json_schema.empty()) {
        check_references(parse_json(input.json_schema, "json_schema"));
    }
    for (const auto & [name, value] : input.variables) {
        parse_json(value, name.c_str());
    }
}

const char * kind_of(common_grammar_trigger_type type) {
    switch (type) {
        case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN: return "token";
        case COMMON_GRAMMAR_TRIGGER_TYPE_WORD: return "word";
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN: return "pattern";
        default: return "pattern_full";
    }
}

RenderedChat to_rendered(const common_chat_params & params) {
    RenderedChat chat{};
    chat.prompt = params.prompt;
    chat.format = common_chat_format_name(params.format);
    chat.grammar = params.grammar;
    chat.generation_prompt = params.generation_prompt;
    chat.thinking_start_tag = params.thinking_start_tag;
    chat.parser_text = params.parser;
    chat.grammar_lazy = params.grammar_lazy;
    chat.supports_thinking = params.supports_thinking;
    for (const auto & trigger : params.grammar_triggers) {
        chat.grammar_triggers.emplace_back(kind_of(trigger.type), trigger.value);
    }
    chat.thinking_end_tags = params.thinking_end_tags;
    chat.preserved_tokens = params.preserved_tokens;
    chat.additional_stops = params.additional_stops;
    return chat;
}

} // namespace

std::shared_ptr<ChatTemplate> compile_template(const llama_model * model, const std::string & source) {
    auto result = std::make_shared<ChatTemplate>();
    const char * plain = llama_model_chat_template(model, nullptr);
    const char * with_tools = llama_model_chat_template(model, "tool_use");
    result->source_size = !source.empty()
                              ? source.size()
                              : std::max(plain ? std::strlen(plain) : 0, with_tools ? std::strlen(with_tools) : 0);
    run_template(result->source_size, 0, 0, [&] {
        result->templates = compile(model, source);
        for (const auto * one : {result->templates->template_default.get(), result->templates->template_tool_use.get()}) {
            result->specialized = result->specialized || (one && handles_itself(*one));
        }
    });
    return result;
}

bool is_specialized(const ChatTemplate & chat_template) { return chat_template.specialized; }

bool was_explicit(const ChatTemplate & chat_template) {
    return common_chat_templates_was_explicit(chat_template.templates.get());
}

std::string source_of(const ChatTemplate & chat_template) {
    return common_chat_templates_source(chat_template.templates.get());
}

std::map<std::string, bool> caps_of(const ChatTemplate & chat_template) {
    return common_chat_templates_get_caps(chat_template.templates.get());
}

RenderedChat render_chat(ChatTemplate & chat_template, const ChatInput & input) {
    common_chat_templates_inputs inputs = to_inputs(input);
    RenderedChat chat;
    Guard guard(chat_template, "chat template");
    WithoutGil release;
    run_template(chat_template.source_size, size_of(input), stack_of(input), [&] {
        parse_texts(input, inputs);
        const common_chat_params params = common_chat_templates_apply(chat_template.templates.get(), inputs);
        AnswerParser parser{common_chat_parser_params(params)};
        parser.params.reasoning_format = inputs.reasoning_format;
        if (!params.parser.empty()) {
            parser.params.parser.load(params.parser);
        }
        chat = to_rendered(params);
        chat.parser = std::make_shared<const AnswerParser>(std::move(parser));
    });
    return chat;
}

RenderedChat with_parser(const RenderedChat & chat, const std::string & parser_text) {
    AnswerParser parser = *chat.parser;
    parser.params.parser = load_parser(parser_text);
    RenderedChat result = chat;
    result.parser_text = parser_text;
    result.parser = std::make_shared<const AnswerParser>(std::move(parser));
    return result;
}

AnswerMessage parse_answer(const RenderedChat & chat, const std::string & text, bool is_partial) {
    constexpr size_t kShallow = 16, kDeepest = 10000; // levels of brackets
    const size_t depth = nesting_depth(text, false);
    if (depth > kDeepest) {
        throw std::runtime_error("the text is nested too deep");
    }
    common_chat_msg message;
    const auto work = [&] { message = common_chat_parse(text, is_partial, chat.parser->params); };
    if (depth <= kShallow) {
        work();
    } else {
        run_on_big_stack(depth * kStackPerLevel, work);
    }
    AnswerMessage result{message.content, message.reasoning_content, {}};
    for (const auto & call : message.tool_calls) {
        result.calls.push_back({call.id, call.name, call.arguments});
    }
    return result;
}
