// Chat: messages to prompt by the Jinja engine of llama.cpp's `common`, and what was generated back to a message.
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "big_stack.hpp"
#include "chat-auto-parser.h"
#include "chat.h"
#include "grammar.hpp"
#include "guard.hpp"
#include "log.h"
#include "model.hpp"
#include "modules.hpp"
#include "peg.hpp"
#include "template_budget.hpp"

// As in common/chat.cpp, which keeps it to itself.
struct common_chat_templates {
    bool add_bos;
    bool add_eos;
    bool has_explicit_template;
    std::unique_ptr<common_chat_template> template_default;
    std::unique_ptr<common_chat_template> template_tool_use;
};

namespace {

// -------------------------------------------------------------------------------------------------------------- templates

constexpr size_t kStackPerByte = 16 << 10;  // parser and interpreter recurse as deep as the template's source is nested
constexpr size_t kStackPerLevel = 64 << 10; // of nested JSON
constexpr size_t kRecursion = 8 << 20;      // for macros that call each other
// Many times what models' templates need, for a call without and for each byte of its messages and tools. Values that contain
// each other are freed recursively, with less stack than they take of memory.
constexpr uint64_t kSteps = 20'000'000, kStepsPerByte = 500;
constexpr size_t kMemory = 64 << 20, kMemoryPerByte = 256;

// At the beginning of a program: another rendering has memory of its own.
struct BeginStatement : jinja::statement {
    BeginStatement() { pos = 0; }
    std::string type() const override { return "Block"; }
    jinja::value execute_impl(jinja::context &) override {
        cyllama::template_begins();
        return jinja::mk_val<jinja::value_undefined>();
    }
};

void add_begin(jinja::program & program) { program.body.insert(program.body.begin(), std::make_unique<BeginStatement>()); }

// Runs `work`, which renders a template whose source has so many bytes, with an input of so many, on a stack with `extra`
// bytes more.
template <class Work> void render(size_t source_size, size_t input_size, size_t extra, Work && work) {
    const size_t nested = source_size * kStackPerByte, memory = kMemory + input_size * kMemoryPerByte;
    run_on_big_stack(nested * 2 + kRecursion + extra + memory, [&] {
        cyllama::TemplateBudget budget({nested + kRecursion + kBaseStack / 2, kSteps + input_size * kStepsPerByte, memory});
        try {
            work();
        } catch (const std::exception &) {
            budget.check(); // in fewer words
            throw;
        }
        budget.check();
    });
}

// What the constructor of common_chat_template does: throws what it would throw.
void try_template(const std::string & source) {
    jinja::lexer lexer;
    jinja::program program = jinja::parse_from_tokens(lexer.tokenize(source));
    add_begin(program);
    jinja::caps_get(program); // ignores what is thrown
}

common_chat_templates_ptr compile(const llama_model * model, const std::string & source) {
    const char * own = source.empty() ? llama_model_chat_template(model, nullptr) : source.c_str();
    const char * with_tools = source.empty() ? llama_model_chat_template(model, "tool_use") : nullptr;
    for (const char * text : {own, with_tools}) {
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

struct Templates : Guarded { // rendering changes the nodes of a program for a moment
    common_chat_templates_ptr templates;
    size_t source_size = 0;
    bool specialized = false;
};

// Whether llama.cpp knows a template, and handles it in a way of its own.
bool is_specialized(const common_chat_template & one) {
    autoparser::generation_params params;
    params.messages = parse_json(R"([{"role": "user", "content": ""}])", "messages");
    params.add_generation_prompt = true;
    try {
        return common_chat_try_specialized_template(one, one.source(), params).has_value();
    } catch (const std::exception &) { // what is known has been called, and refused the message
        return true;
    }
}

struct LlamaChatTemplates {
    std::shared_ptr<Templates> handle;
};

LlamaChatTemplates make_templates(const LlamaModel & model_object, const std::string & chat_template) {
    LogDelivery delivery;
    ModelUse model(model_object.handle);
    auto handle = std::make_shared<Templates>();
    const char * own = llama_model_chat_template(model.get(), nullptr);
    const char * with_tools = llama_model_chat_template(model.get(), "tool_use");
    handle->source_size = !chat_template.empty()
                              ? chat_template.size()
                              : std::max(own ? std::strlen(own) : 0, with_tools ? std::strlen(with_tools) : 0);
    WithoutGil release;
    render(handle->source_size, 0, 0, [&] {
        handle->templates = compile(model.get(), chat_template);
        for (const auto * one : {handle->templates->template_default.get(), handle->templates->template_tool_use.get()}) {
            handle->specialized = handle->specialized || (one && is_specialized(*one));
        }
    });
    return {handle};
}

// --------------------------------------------------------------------------------------------------------------- messages

/// The Python class LlamaChatParams: a rendered chat, and how to read the answer.
struct LlamaChatParams {
    common_chat_params params;
    common_chat_parser_params parser;
};

common_chat_tool_choice to_tool_choice(const std::string & name) {
    if (name != "auto" && name != "none" && name != "required") {
        throw nb::value_error(("tool_choice must be 'auto', 'none' or 'required', not '" + name + "'").c_str());
    }
    return common_chat_tool_choice_parse_oaicompat(name);
}

LlamaChatParams apply(const LlamaChatTemplates & self, const std::string & messages, const std::string & tools,
                      const std::string & tool_choice, const std::string & json_schema, bool parallel_tool_calls,
                      bool add_generation_prompt, bool enable_thinking, bool parse_reasoning, bool force_pure_content,
                      const std::map<std::string, std::string> & chat_template_kwargs) {
    common_chat_templates_inputs inputs;
    inputs.tool_choice = to_tool_choice(tool_choice);
    inputs.json_schema = json_schema;
    inputs.parallel_tool_calls = parallel_tool_calls;
    inputs.add_generation_prompt = add_generation_prompt;
    inputs.enable_thinking = enable_thinking;
    inputs.reasoning_format = parse_reasoning ? COMMON_REASONING_FORMAT_DEEPSEEK : COMMON_REASONING_FORMAT_NONE;
    inputs.force_pure_content = force_pure_content;
    inputs.chat_template_kwargs = chat_template_kwargs;
    LlamaChatParams result;
    Guard guard(*self.handle, "chat template");
    WithoutGil release;
    const size_t depth =
        std::max({nesting_depth(messages, true), nesting_depth(tools, true), nesting_depth(json_schema, true)});
    const size_t names = tools.size() + json_schema.size(); // regular expressions recurse along the names of rules
    size_t input_size = messages.size() + tools.size() + json_schema.size();
    for (const auto & [name, value] : chat_template_kwargs) {
        input_size += name.size() + value.size();
    }
    const size_t extra = std::min<size_t>(depth, 1000) * kStackPerLevel + names * 1024;
    render(self.handle->source_size, input_size, extra, [&] {
        inputs.messages = common_chat_msgs_parse_oaicompat(parse_json(messages, "messages"));
        if (!tools.empty()) {
            const common_json list = parse_json(tools, "tools");
            check_references(list);
            inputs.tools = common_chat_tools_parse_oaicompat(list);
            for (const auto & tool : inputs.tools) {
                check_references(common_json::parse(tool.parameters));
            }
        }
        if (!json_schema.empty()) {
            check_references(parse_json(json_schema, "json_schema"));
        }
        for (const auto & [name, value] : chat_template_kwargs) {
            parse_json(value, name.c_str());
        }
        result.params = common_chat_templates_apply(self.handle->templates.get(), inputs);
        result.parser = common_chat_parser_params(result.params);
        result.parser.reasoning_format = inputs.reasoning_format;
        if (!result.params.parser.empty()) {
            result.parser.parser.load(result.params.parser);
        }
    });
    return result;
}

LlamaChatParams with_parser(const LlamaChatParams & self, const std::string & parser) {
    LlamaChatParams result = self;
    WithoutGil release;
    result.parser.parser = load_parser(parser);
    result.params.parser = parser;
    return result;
}

nb::tuple parse(const LlamaChatParams & self, const std::string & text, bool is_partial) {
    constexpr size_t kShallow = 16, kDeepest = 10000;
    common_chat_msg message;
    {
        WithoutGil release;
        const size_t depth = nesting_depth(text, false);
        if (depth > kDeepest) {
            throw std::runtime_error("the text is nested too deep");
        }
        const auto work = [&] { message = common_chat_parse(text, is_partial, self.parser); };
        if (depth <= kShallow) {
            work();
        } else {
            run_on_big_stack(depth * kStackPerLevel, work);
        }
    }
    nb::list calls;
    for (const auto & call : message.tool_calls) {
        calls.append(nb::make_tuple(to_str(call.id), to_str(call.name), to_str(call.arguments)));
    }
    return nb::make_tuple(to_str(message.content), to_str(message.reasoning_content), calls);
}

std::vector<std::pair<std::string, std::string>> triggers(const LlamaChatParams & self) {
    const auto name = [](common_grammar_trigger_type type) {
        switch (type) {
            case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN: return "token";
            case COMMON_GRAMMAR_TRIGGER_TYPE_WORD: return "word";
            case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN: return "pattern";
            default: return "pattern_full";
        }
    };
    std::vector<std::pair<std::string, std::string>> result;
    for (const auto & trigger : self.params.grammar_triggers) {
        result.emplace_back(name(trigger.type), trigger.value);
    }
    return result;
}

template <auto member> auto text_getter() {
    return [](const LlamaChatParams & self) { return to_str(self.params.*member); };
}

template <auto member> auto list_getter() {
    return [](const LlamaChatParams & self) {
        nb::list result;
        for (const std::string & text : self.params.*member) {
            result.append(to_str(text));
        }
        return nb::typed<nb::list, nb::str>(result);
    };
}

// ------------------------------------------------------------------------------------------- templates known by a name only

std::vector<std::string> known_names() {
    std::vector<const char *> names(static_cast<size_t>(llama_chat_builtin_templates(nullptr, 0)));
    llama_chat_builtin_templates(names.data(), names.size());
    return {names.begin(), names.end()};
}

nb::str apply_known(const std::string & name, const std::vector<std::pair<std::string, std::string>> & messages,
                    bool add_generation_prompt) {
    const std::vector<std::string> names = known_names();
    if (std::find(names.begin(), names.end(), name) == names.end()) {
        throw nb::value_error(("llama.cpp knows no chat template of the name '" + name + "'").c_str());
    }
    std::vector<llama_chat_message> chat;
    size_t size = 1024;
    for (const auto & [role, content] : messages) {
        chat.push_back({role.c_str(), content.c_str()});
        size += 2 * (role.size() + content.size()) + 256;
    }
    std::string text(size, '\0');
    const auto run = [&] {
        return llama_chat_apply_template(name.c_str(), chat.data(), chat.size(), add_generation_prompt, text.data(),
                                         static_cast<int32_t>(text.size()));
    };
    int32_t n = run();
    if (n > static_cast<int32_t>(text.size())) {
        text.resize(static_cast<size_t>(n));
        n = run();
    }
    if (n < 0) {
        throw std::runtime_error("the chat template '" + name + "' cannot be applied");
    }
    text.resize(static_cast<size_t>(n));
    return to_str(text);
}

using P = common_chat_params;

void init_params(nb::module_ & m) {
    nb::class_<LlamaChatParams>(m, "LlamaChatParams",
                                "A rendered chat, and how the answer is constrained and read (common_chat_params).")
        .def_prop_ro("prompt", text_getter<&P::prompt>(), "The prompt.")
        .def_prop_ro(
            "format", [](const LlamaChatParams & self) { return std::string(common_chat_format_name(self.params.format)); },
            "Name of the format of the answer.")
        .def_prop_ro("grammar", text_getter<&P::grammar>(), "GBNF that the answer has to fit, or an empty text.")
        .def_prop_ro(
            "grammar_lazy", [](const LlamaChatParams & self) { return self.params.grammar_lazy; },
            "Whether the grammar begins at a trigger only; otherwise it begins with `generation_prompt`.")
        .def_prop_ro("grammar_triggers", &triggers,
                     "What the grammar begins at: pairs of 'token', 'word', 'pattern' or 'pattern_full' and a text.")
        .def_prop_ro("generation_prompt", text_getter<&P::generation_prompt>(),
                     "The end of the prompt that is the beginning of the answer.")
        .def_prop_ro(
            "supports_thinking", [](const LlamaChatParams & self) { return self.params.supports_thinking; },
            "Whether the format has a place for reasoning.")
        .def_prop_ro("thinking_start_tag", text_getter<&P::thinking_start_tag>(), "What reasoning begins with.")
        .def_prop_ro("thinking_end_tags", list_getter<&P::thinking_end_tags>(), "What reasoning can end with.")
        .def_prop_ro("preserved_tokens", list_getter<&P::preserved_tokens>(),
                     "Control tokens whose text `parse` has to see.")
        .def_prop_ro("additional_stops", list_getter<&P::additional_stops>(), "Texts that end the answer.")
        .def_prop_ro("parser", text_getter<&P::parser>(),
                     "What `parse` reads answers with, as JSON text (common_peg_arena).")
        .def("with_parser", &with_parser, nb::arg("parser"),
             "The same with another parser, JSON text such as `parser`.\n\n"
             "Raises ValueError if it is no parser, or recurses without a bracket or a brace in between.")
        .def("parse", &parse, nb::arg("text"), nb::arg("is_partial") = false,
             nb::sig("def parse(self, text: str, is_partial: bool = False) "
                     "-> tuple[str, str, list[tuple[str, str, str]]]"),
             "Content, reasoning and tool calls (id, name, arguments) of an answer, whole or its beginning.\n\n"
             "Raises RuntimeError if it does not fit the format.");
}

} // namespace

void init_chat(nb::module_ & m) {
    common_log_set_verbosity_thold(-1); // it writes to stderr; what matters is thrown
    init_params(m);
    m.def(
        "parser_grammar",
        [](const std::string & parser, bool lazy) {
            std::string grammar;
            {
                WithoutGil release;
                grammar = grammar_of_parser(parser, lazy);
            }
            return to_str(grammar);
        },
        nb::arg("parser"), nb::arg("lazy") = false,
        "The GBNF of what a parser reads, JSON text such as `LlamaChatParams.parser`; `lazy`: of its trigger rules only.\n\n"
        "Raises ValueError if it is no parser, or has schemas: their grammars belong into it, as nodes of type 'gbnf'.");
    nb::class_<LlamaChatTemplates>(m, "LlamaChatTemplates",
                                   "A model's chat template, or another one in its place (common_chat_templates).")
        .def(
            "__init__",
            [](LlamaChatTemplates * self, const LlamaModel & model, const std::string & chat_template) {
                new (self) LlamaChatTemplates(make_templates(model, chat_template));
            },
            nb::arg("model"), nb::arg("chat_template") = "",
            "Compile `chat_template`, Jinja source, or if it is empty the model's own.\n\n"
            "Raises RuntimeError if it cannot be compiled.")
        .def(
            "apply", &apply, nb::arg("messages"), nb::kw_only(), nb::arg("tools") = "", nb::arg("tool_choice") = "auto",
            nb::arg("json_schema") = "", nb::arg("parallel_tool_calls") = false, nb::arg("add_generation_prompt") = true,
            nb::arg("enable_thinking") = true, nb::arg("parse_reasoning") = true, nb::arg("force_pure_content") = false,
            nb::arg("chat_template_kwargs") = std::map<std::string, std::string>(),
            "Render messages, JSON text in OpenAI's format, to a prompt.\n\n"
            "`tools` is JSON text in OpenAI's format, or empty; `tool_choice` is 'auto', 'none' or 'required'.\n"
            "`json_schema` is what the answer has to fit. `add_generation_prompt` ends the prompt with the beginning of the\n"
            "answer. `force_pure_content` renders without looking for the format of the answer.\n"
            "`chat_template_kwargs` are variables of the template, as JSON text.\n\n"
            "Raises RuntimeError if the template refuses the messages, ValueError for what is no JSON.")
        .def_static("known_names", &known_names, "Names of the chat templates that llama.cpp has without Jinja source.")
        .def_static(
            "apply_known", &apply_known, nb::arg("name"), nb::arg("messages"), nb::arg("add_generation_prompt") = true,
            "Render messages, pairs of a role and a content, by one of `known_names` (llama_chat_apply_template).\n\n"
            "Raises ValueError for an unknown name.")
        .def_prop_ro(
            "specialized", [](const LlamaChatTemplates & self) { return self.handle->specialized; },
            "Whether llama.cpp handles the template in a way of its own, which may change messages before they are rendered.")
        .def_prop_ro(
            "caps",
            [](const LlamaChatTemplates & self) { return common_chat_templates_get_caps(self.handle->templates.get()); },
            "What the template can do: supports_tools, supports_tool_calls, supports_system_role, ...")
        .def_prop_ro(
            "source",
            [](const LlamaChatTemplates & self) {
                return to_str(common_chat_templates_source(self.handle->templates.get()));
            },
            "The template in use, as Jinja source.")
        .def_prop_ro(
            "was_explicit",
            [](const LlamaChatTemplates & self) {
                return common_chat_templates_was_explicit(self.handle->templates.get());
            },
            "Whether the model or the caller named a template; otherwise ChatML is assumed.");
}
