// Chat templates: messages to prompt, by the Jinja engine of llama.cpp's `common`.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "chat.h"
#include "guard.hpp"
#include "model.hpp"
#include "modules.hpp"

namespace {

struct LlamaChatTemplates {
    common_chat_templates_ptr templates;
};

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
        nb::gil_scoped_release release;
        prompt = common_chat_templates_apply(self.templates.get(), inputs).prompt;
    }
    return to_str(prompt);
}

} // namespace

void init_chat(nb::module_ & m) {
    nb::class_<LlamaChatTemplates>(m, "LlamaChatTemplates",
                                   "A model's chat template, or another one in its place (common_chat_templates).")
        .def(
            "__init__",
            [](LlamaChatTemplates * self, const LlamaModel & model_object, const std::string & chat_template) {
                ModelUse model(model_object.handle);
                new (self) LlamaChatTemplates{common_chat_templates_init(model.get(), chat_template)};
            },
            nb::arg("model"), nb::arg("chat_template") = "",
            "Compile `chat_template`, Jinja source, or if it is empty the model's own.\n\n"
            "Raises RuntimeError if it cannot be compiled.")
        .def("apply", &apply, nb::arg("messages"), nb::arg("add_generation_prompt") = true,
             "The prompt for messages, pairs of role and content.\n\n"
             "`add_generation_prompt` ends it with the beginning of the assistant's answer. Raises RuntimeError if the\n"
             "template refuses the messages.")
        .def_prop_ro(
            "source", [](const LlamaChatTemplates & self) { return to_str(common_chat_templates_source(self.templates.get())); },
            "The template in use, as Jinja source.")
        .def_prop_ro(
            "was_explicit",
            [](const LlamaChatTemplates & self) { return common_chat_templates_was_explicit(self.templates.get()); },
            "Whether the model or the caller named a template; otherwise ChatML is assumed.");
}
