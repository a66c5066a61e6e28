// Functions of the Python module about grammars.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "conversion.hpp"
#include "errors.hpp"
#include "grammar_machine.hpp"
#include "guard.hpp"
#include "json_schema.hpp"
#include "modules.hpp"

static nb::str json_schema_grammar(const std::string & schema) {
    std::string grammar;
    {
        WithoutGil release;
        grammar = schema_to_grammar(schema);
    }
    return to_str(grammar);
}

static void check_grammar(const std::string & grammar, const std::string & root) {
    LogDelivery delivery;
    if (grammar.empty()) {
        throw_value_error("the grammar is empty");
    }
    auto rules = parse_grammar(nullptr, grammar, root);
    WithoutGil release;
    make_machine(std::move(rules));
}

void init_grammar(nb::module_ & m) {
    m.def("check_grammar", &check_grammar, nb::arg("grammar"), nb::arg("root") = "root", R"doc(
        Check a grammar without a vocabulary.

        Args:
            grammar: GBNF.
            root: Name of the rule that a text has to fit.

        Raises:
            ValueError: The grammar is not valid GBNF, with the reason, or its beginning takes too much work.
        )doc");
    m.def("json_schema_to_grammar", &json_schema_grammar, nb::arg("schema"),
          R"doc(
        Convert a JSON schema to a GBNF grammar (json_schema_to_grammar).

        llama.cpp ignores keywords that it does not know.

        Args:
            schema: JSON text of at most 4 MiB.

        Returns:
            The grammar, with the rule "root".

        Raises:
            ValueError: The text is not JSON, or not a schema, or has references that cannot be resolved.
        )doc");
}
