// The Python classes LlamaChatTemplates and LlamaChatParams.
#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

#include "common_chat.hpp"
#include "conversion.hpp"
#include "errors.hpp"
#include "guard.hpp"
#include "log.h"
#include "model.hpp"
#include "modules.hpp"
#include "peg.hpp"

namespace {

RenderedChat copy_with_parser(const RenderedChat & self, const std::string & parser) {
    WithoutGil release;
    return with_parser(self, parser);
}

nb::tuple parse(const RenderedChat & self, const std::string & text, bool is_partial) {
    AnswerMessage message;
    {
        WithoutGil release;
        message = parse_answer(self, text, is_partial);
    }
    nb::list calls;
    for (const ToolCall & call : message.calls) {
        calls.append(nb::make_tuple(to_str(call.id), to_str(call.name), to_str(call.arguments)));
    }
    return nb::make_tuple(to_str(message.content), to_str(message.reasoning), calls);
}

template <auto member> auto text_getter() {
    return [](const RenderedChat & self) { return to_str(self.*member); };
}

template <auto member> auto list_getter() {
    return [](const RenderedChat & self) {
        nb::list result;
        for (const std::string & text : self.*member) {
            result.append(to_str(text));
        }
        return nb::typed<nb::list, nb::str>(result);
    };
}

nb::str parser_grammar(const std::string & parser, bool lazy) {
    std::string grammar;
    {
        WithoutGil release;
        grammar = grammar_of_parser(parser, lazy);
    }
    return to_str(grammar);
}

void init_params_properties(nb::class_<RenderedChat> & params) {
    params.def_prop_ro("prompt", text_getter<&RenderedChat::prompt>(), "The prompt.")
        .def_ro("format", &RenderedChat::format, "Name of the format of the answer (common_chat_format_name).")
        .def_prop_ro("grammar", text_getter<&RenderedChat::grammar>(), "GBNF that the answer has to fit, or an empty text.")
        .def_ro("grammar_lazy", &RenderedChat::grammar_lazy,
                "Whether the grammar begins at a trigger; otherwise it begins with `generation_prompt`.")
        .def_ro("grammar_triggers", &RenderedChat::grammar_triggers,
                "Triggers of the grammar: pairs of a kind ('token', 'word', 'pattern' or 'pattern_full') and a text.")
        .def_prop_ro("generation_prompt", text_getter<&RenderedChat::generation_prompt>(),
                     "The end of the prompt, which is the beginning of the answer.")
        .def_ro("supports_thinking", &RenderedChat::supports_thinking, "Whether the format has a place for reasoning.")
        .def_prop_ro("thinking_start_tag", text_getter<&RenderedChat::thinking_start_tag>(),
                     "Text that reasoning begins with.")
        .def_prop_ro("thinking_end_tags", list_getter<&RenderedChat::thinking_end_tags>(),
                     "Texts that reasoning can end with.")
        .def_prop_ro("preserved_tokens", list_getter<&RenderedChat::preserved_tokens>(),
                     "Texts of control tokens that parse() has to see.")
        .def_prop_ro("additional_stops", list_getter<&RenderedChat::additional_stops>(), "Texts that end the answer.")
        .def_prop_ro("parser", text_getter<&RenderedChat::parser_text>(),
                     "The parser that parse() uses, as JSON text (common_peg_arena).");
}

void init_params_methods(nb::class_<RenderedChat> & params) {
    params
        .def("with_parser", &copy_with_parser, nb::arg("parser"), R"doc(
            Return a copy with another parser.

            Args:
                parser: JSON text, as of the attribute `parser`.

            Raises:
                ValueError: The text is not a parser, or the parser recurses without a bracket or a brace in between.
            )doc")
        .def("parse", &parse, nb::arg("text"), nb::arg("is_partial") = false,
             nb::sig("def parse(self, text: str, is_partial: bool = False) "
                     "-> tuple[str, str, list[tuple[str, str, str]]]"),
             R"doc(
            Read an answer (common_chat_parse).

            Args:
                text: The answer, or its beginning.
                is_partial: The text is only the beginning.

            Returns:
                Content, reasoning, and tool calls: triples of id, name and arguments, which are JSON text.

            Raises:
                RuntimeError: The text does not fit the format, or is nested too deep.
            )doc");
}

struct LlamaChatTemplates {
    std::shared_ptr<ChatTemplate> handle;
};

void make_templates(LlamaChatTemplates * self, const LlamaModel & model, const std::string & chat_template) {
    LogDelivery delivery;
    ModelUse use(model.handle);
    std::shared_ptr<ChatTemplate> handle;
    {
        WithoutGil release;
        handle = compile_template(use.get(), chat_template);
    }
    new (self) LlamaChatTemplates{std::move(handle)};
}

RenderedChat apply(const LlamaChatTemplates & self, const std::string & messages, const std::string & tools,
                   const std::string & tool_choice, const std::string & json_schema, bool parallel_tool_calls,
                   bool add_generation_prompt, bool enable_thinking, bool parse_reasoning, bool force_pure_content,
                   const std::map<std::string, std::string> & chat_template_kwargs) {
    return render_chat(*self.handle, {messages, tools, tool_choice, json_schema, parallel_tool_calls, add_generation_prompt,
                                      enable_thinking, parse_reasoning, force_pure_content, chat_template_kwargs});
}

std::vector<std::string> known_names() {
    std::vector<const char *> names(static_cast<size_t>(llama_chat_builtin_templates(nullptr, 0)));
    llama_chat_builtin_templates(names.data(), names.size());
    return {names.begin(), names.end()};
}

nb::str apply_known(const std::string & name, const std::vector<std::pair<std::string, std::string>> & messages,
                    bool add_generation_prompt) {
    const std::vector<std::string> names = known_names();
    if (std::find(names.begin(), names.end(), name) == names.end()) {
        throw_value_error("llama.cpp has no chat template of the name '" + name + "'");
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

void init_apply(nb::class_<LlamaChatTemplates> & templates) {
    templates.def("apply", &apply, nb::arg("messages"), nb::kw_only(), nb::arg("tools") = "",
                  nb::arg("tool_choice") = "auto", nb::arg("json_schema") = "", nb::arg("parallel_tool_calls") = false,
                  nb::arg("add_generation_prompt") = true, nb::arg("enable_thinking") = true,
                  nb::arg("parse_reasoning") = true, nb::arg("force_pure_content") = false,
                  nb::arg("chat_template_kwargs") = std::map<std::string, std::string>(), R"doc(
            Render messages to a prompt (common_chat_templates_apply).

            Args:
                messages: JSON text, a list of messages in OpenAI's format.
                tools: JSON text, a list of tools in OpenAI's format; or empty.
                tool_choice: 'auto', 'none' or 'required'.
                json_schema: JSON text, a schema that the answer has to fit; or empty.
                parallel_tool_calls: The answer may have several tool calls.
                add_generation_prompt: End the prompt with the beginning of the answer.
                enable_thinking: Ask the template for an answer with reasoning.
                parse_reasoning: LlamaChatParams.parse() returns reasoning apart from the content.
                force_pure_content: Do not look for the format of the answer: all of it is content.
                chat_template_kwargs: Variables of the template, each as JSON text.

            Raises:
                ValueError: A text is not JSON, `tool_choice` is unknown, or a schema has references that cannot be
                    resolved.
                RuntimeError: The template refuses the messages, or takes too much work, memory or stack.
            )doc");
}

void init_known(nb::class_<LlamaChatTemplates> & templates) {
    templates
        .def_static("known_names", &known_names,
                    "Return the names of chat templates that llama.cpp has in code (llama_chat_builtin_templates).")
        .def_static("apply_known", &apply_known, nb::arg("name"), nb::arg("messages"),
                    nb::arg("add_generation_prompt") = true, R"doc(
            Render messages with a chat template that llama.cpp has in code (llama_chat_apply_template).

            Args:
                name: One of known_names().
                messages: Pairs of a role and a content.
                add_generation_prompt: End the prompt with the beginning of the answer.

            Returns:
                The prompt.

            Raises:
                ValueError: There is no such template.
                RuntimeError: The template cannot be applied.
            )doc");
}

void init_template_properties(nb::class_<LlamaChatTemplates> & templates) {
    templates
        .def_prop_ro(
            "specialized", [](const LlamaChatTemplates & self) { return is_specialized(*self.handle); },
            "Whether llama.cpp handles the template with code of its own, which may change messages before they are\n"
            "rendered.")
        .def_prop_ro(
            "caps", [](const LlamaChatTemplates & self) { return caps_of(*self.handle); },
            "What the template supports: supports_tools, supports_tool_calls, supports_system_role, ...")
        .def_prop_ro(
            "source", [](const LlamaChatTemplates & self) { return to_str(source_of(*self.handle)); },
            "The template in use, as Jinja source.")
        .def_prop_ro(
            "was_explicit", [](const LlamaChatTemplates & self) { return was_explicit(*self.handle); },
            "Whether the model or the caller has a template; otherwise ChatML is used.");
}

} // namespace

static void init_params_class(nb::module_ & m) {
    nb::class_<RenderedChat> params(m, "LlamaChatParams", R"doc(
        A rendered chat, and how the answer is constrained and read (common_chat_params).
        )doc");
    init_params_properties(params);
    init_params_methods(params);
    m.def("parser_grammar", &parser_grammar, nb::arg("parser"), nb::arg("lazy") = false, R"doc(
        Return the grammar of the texts that a parser reads.

        Args:
            parser: JSON text, as of LlamaChatParams.parser.
            lazy: Only the part of the grammar that follows a trigger.

        Returns:
            GBNF.

        Raises:
            ValueError: The text is not a parser, or the parser has schemas: a schema's grammar belongs into it, as a node
                of type 'gbnf'.
        )doc");
}

void init_chat(nb::module_ & m) {
    common_log_set_verbosity_thold(-1); // llama.cpp's `common` logs to stderr; its errors are thrown as well
    init_params_class(m);
    nb::class_<LlamaChatTemplates> templates(m, "LlamaChatTemplates", R"doc(
        The chat template of a model, or another one in its place (common_chat_templates).
        )doc");
    templates.def("__init__", &make_templates, nb::arg("model"), nb::arg("chat_template") = "", R"doc(
            Compile a chat template (common_chat_templates_init).

            Args:
                model: The model.
                chat_template: Jinja source; if empty, the model's own template.

            Raises:
                RuntimeError: The template cannot be compiled, or takes too much work, memory or stack.
            )doc");
    init_apply(templates);
    init_known(templates);
    init_template_properties(templates);
}
