// Chat templates: messages to prompt, by the Jinja engine of llama.cpp's `common`.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <utility>

#include "big_stack.hpp"
#include "chat.h"
#include "guard.hpp"
#include "log.h"
#include "model.hpp"
#include "modules.hpp"

namespace {

struct LlamaChatTemplates {
    common_chat_templates_ptr templates;
    size_t stack; // bytes to work on it: parser and interpreter recurse as deep as the source is nested
};

constexpr size_t kStackPerByte = 16 << 10;

common_chat_templates_ptr compile(const llama_model * model, const std::string & source) {
    try {
        return common_chat_templates_init(model, source);
    } catch (const std::exception &) { // which has lost its message
        common_chat_template(source, "", "");
        throw;
    }
}

using Message = std::pair<std::string, std::string>;

nb::str apply(const LlamaChatTemplates & self, const std::vector<Message> & messages, bool add_generation_prompt) {
    common_chat_templates_inputs inputs;
    inputs.add_generation_prompt = add_generation_prompt;
    for (const auto & [role, content] : messages) {
        common_chat_msg message;
        message.role = role;
        message.content = content;
        inputs.messages.push_back(std::move(message));
    }
    std::string prompt;
    {
        WithoutGil release;
        run_on_big_stack(self.stack, [&] { prompt = common_chat_templates_apply(self.templates.get(), inputs).prompt; });
    }
    return to_str(prompt);
}

} // namespace

void init_chat(nb::module_ & m) {
    common_log_set_verbosity_thold(-1); // it writes to stderr; what matters is thrown
    nb::class_<LlamaChatTemplates>(m, "LlamaChatTemplates",
                                   "A model's chat template, or another one in its place (common_chat_templates).")
        .def(
            "__init__",
            [](LlamaChatTemplates * self, const LlamaModel & model_object, const std::string & chat_template) {
                LogDelivery delivery;
                ModelUse model(model_object.handle);
                const char * own = llama_model_chat_template(model.get(), nullptr);
                const size_t size = !chat_template.empty() ? chat_template.size() : own ? std::strlen(own) : 0;
                LlamaChatTemplates result{nullptr, size * kStackPerByte};
                {
                    WithoutGil release;
                    run_on_big_stack(result.stack, [&] { result.templates = compile(model.get(), chat_template); });
                }
                new (self) LlamaChatTemplates(std::move(result));
            },
            nb::arg("model"), nb::arg("chat_template") = "",
            "Compile `chat_template`, Jinja source, or if it is empty the model's own.\n\n"
            "Raises RuntimeError if it cannot be compiled.")
        .def("apply", &apply, nb::arg("messages"), nb::arg("add_generation_prompt") = true,
             "The prompt for messages, pairs of role and content.\n\n"
             "`add_generation_prompt` ends it with the beginning of the assistant's answer. Raises RuntimeError if the\n"
             "template refuses the messages.")
        .def_prop_ro(
            "source",
            [](const LlamaChatTemplates & self) { return to_str(common_chat_templates_source(self.templates.get())); },
            "The template in use, as Jinja source.")
        .def_prop_ro(
            "was_explicit",
            [](const LlamaChatTemplates & self) { return common_chat_templates_was_explicit(self.templates.get()); },
            "Whether the model or the caller named a template; otherwise ChatML is assumed.");
}
