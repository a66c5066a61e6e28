# cyllama_limit_templates(<source>)
#
# Edits the copy of llama.cpp's interpreter of chat templates so that it keeps to the limits of template_budget.hpp: every
# evaluation is counted, and so is work on large values that neither evaluates nor allocates. Code that crashes, or that takes
# quadratic time, is replaced. Every edit has to find its place: after an update of llama.cpp that changes it, configuring
# fails here.

include(Edit)

function(cyllama_limit_templates source)
  set(jinja "${source}/common/jinja")

  cyllama_edit("${jinja}/runtime.cpp"
    # every evaluation of a node
    [=[value statement::execute(context & ctx) {
    try {]=]
    [=[value statement::execute(context & ctx) {
    cyllama::TemplateEvaluation evaluation;
    try {]=]
    # tests are functions that are called without a value_func
    "    auto res = it->second(args);"
    "    args.count_work();
    auto res = it->second(args);"
    # maps of functions, copied for each name and each filter
    "auto builtins = global_builtins();"
    "const auto & builtins = global_builtins();"
    "auto builtins = input->get_builtins();"
    "const auto & builtins = input->get_builtins();")

  cyllama_edit("${jinja}/runtime.h"
    "static void gather_string_parts_recursive(const value & val, value_string & parts) {"
    "static void gather_string_parts_recursive(const value & val, value_string & parts) {
    cyllama::TemplateEvaluation evaluation;"
    "        const auto & str_val = cast_val<value_string>(val)->val_str;"
    "        const auto & str_val = cast_val<value_string>(val)->val_str;
        cyllama::template_output(str_val.length());")

  cyllama_edit("${jinja}/value.h"
    [=[#include "utils.h"]=]
    [=[#include "utils.h"
#include "template_budget.hpp"]=]
    # a value may contain itself, or the same value many times
    [=[    virtual bool is_hashable() const override {
        if (std::all_of(]=]
    [=[    virtual bool is_hashable() const override {
        cyllama::TemplateEvaluation evaluation;
        if (std::all_of(]=]
    # every call of a function or filter
    "        return val_func(new_args);"
    "        new_args.count_work();
        return val_func(new_args);"
    "    size_t count() const { return args.size(); }"
    "    size_t count() const { return args.size(); }
    void count_work() const {
        for (const auto & arg : args) {
            cyllama::template_work(arg->val_arr.size() * 16 + arg->val_obj.size() * 32 + arg->val_str.length());
        }
    }"
    # the fewest digits that mean the same number, instead of six behind the point
    [=[        std::string out = std::to_string(val_flt);
        out.erase(out.find_last_not_of('0') + 1, std::string::npos); // remove trailing zeros
        if (out.back() == '.') out.push_back('0'); // leave one zero if no decimals
        return out;]=]
    [=[        char digits[32];
        for (int precision = 15; precision <= 17; ++precision) {
            std::snprintf(digits, sizeof(digits), "%.*g", precision, val_flt);
            if (std::strtod(digits, nullptr) == val_flt) {
                break;
            }
        }
        const std::string out = digits;
        return out.find_first_of(".en") == std::string::npos ? out + ".0" : out;]=])

  cyllama_edit("${jinja}/string.cpp"
    [=[#include "jinja/value.h"]=]
    [=[#include "jinja/value.h"
#include "template_budget.hpp"]=]
    [=[std::string string::str() const {]=]
    [=[std::string string::str() const {
    cyllama::template_work(parts.size() * 32);]=]
    [=[size_t string::length() const {]=]
    [=[size_t string::length() const {
    cyllama::template_work(parts.size() * 32);]=]
    [=[bool string::all_parts_are_input() const {]=]
    [=[bool string::all_parts_are_input() const {
    cyllama::template_work(parts.size() * 32);]=]
    "    if (parts.empty()) {
        return *this;
    }
    if (left) {"
    "    if (parts.empty()) {
        return *this;
    }
    if (chars) {
        cyllama::template_work(length() * (1 + chars->size() / 8));
    }
    if (left) {")

  cyllama_edit("${jinja}/value.cpp"
    "        oss << val->as_float();"
    "        oss << val->as_string().str();"
    # values inside of values
    "std::string_view item_sep, const std::string_view key_sep) {
    auto indent_str"
    "std::string_view item_sep, const std::string_view key_sep) {
    cyllama::TemplateEvaluation evaluation;
    auto indent_str"
    "std::string(curr_lvl * indent, ' ')"
    "std::string(cyllama::template_counted(curr_lvl * indent), ' ')"
    "std::string(indent, ' ')"
    "std::string(cyllama::template_counted(indent), ' ')"
    "        for (char c : val->as_string().str()) {"
    "        cyllama::template_output(val->val_str.length());
        for (char c : val->as_string().str()) {"
    "        const std::string val_str = val->as_string().str();"
    "        const std::string val_str = val->as_string().str();
        cyllama::template_output(val_str.size());"
    "        return val->as_repr();"
    "        const std::string repr = val->as_repr();
        cyllama::template_output(repr.size());
        return repr;"
    "std::string value_to_string_repr(const value & val) {"
    "std::string value_to_string_repr(const value & val) {
    cyllama::TemplateEvaluation evaluation;"
    "void value_t::stats_t::mark_used(value & val, bool deep) {"
    "void value_t::stats_t::mark_used(value & val, bool deep) {
    cyllama::TemplateEvaluation evaluation;"
    # tests for each item
    "            value test_result = test_fn(test_args);"
    "            cyllama::TemplateEvaluation evaluation;
            test_args.count_work();
            value test_result = test_fn(test_args);"
    "                    if (*needle == *item) {"
    "                    cyllama::template_work(128);
                    if (*needle == *item) {"
    "                return mk_val<value_bool>(
                    haystack->as_string().str().find(needle->as_string().str()) != std::string::npos);"
    "                const std::string text = haystack->as_string().str(), searched = needle->as_string().str();
                cyllama::template_work(text.size() * (1 + searched.size() / 16));
                return mk_val<value_bool>(text.find(searched) != std::string::npos);"
    # the comparison is not a strict weak ordering: std::sort would write out of bounds
    "std::sort("
    "std::stable_sort("
    # SIGFPE
    "            bool res = args.get_pos(0)->val_int % args.get_pos(1)->val_int == 0;"
    [=[            const int64_t divisor = args.get_pos(1)->val_int;
            if (divisor == 0) {
                throw raised_exception("divisibleby: division by zero");
            }
            bool res = divisor == -1 || args.get_pos(0)->val_int % divisor == 0;]=]
    # in time that is linear in the text
    "            while ((pos = str.find(delim)) != std::string::npos && maxsplit != 0) {
                token = str.substr(0, pos);
                result->push_back(mk_val<value_string>(token));
                str.erase(0, pos + delim.length());
                --maxsplit;
            }"
    "            cyllama::template_work(str.size() * (1 + delim.size() / 16));
            size_t begin = 0;
            while ((pos = str.find(delim, begin)) != std::string::npos && maxsplit != 0) {
                token = str.substr(begin, pos - begin);
                result->push_back(mk_val<value_string>(token));
                begin = pos + delim.length();
                --maxsplit;
            }
            str.erase(0, begin);"
    "            while ((pos = str.rfind(delim)) != std::string::npos && maxsplit != 0) {"
    "            cyllama::template_work(str.size() * (1 + delim.size() / 16));
            while ((pos = str.rfind(delim)) != std::string::npos && maxsplit != 0) {"
    "                    while ((pos = str.find(old_str, pos)) != std::string::npos) {
                        str.replace(pos, old_str.length(), new_str);
                        pos += new_str.length();
                    }"
    "                    cyllama::template_work(str.size() * (1 + old_str.size() / 16));
                    std::string replaced;
                    size_t begin = 0;
                    while ((pos = str.find(old_str, begin)) != std::string::npos) {
                        replaced.append(str, begin, pos - begin);
                        replaced += new_str;
                        begin = pos + old_str.length();
                    }
                    replaced.append(str, begin, std::string::npos);
                    str = std::move(replaced);")

  if(NOT MSVC)
    set_property(SOURCE "${CMAKE_CURRENT_BINARY_DIR}/jinja.cpp" "${jinja}/runtime.cpp" "${jinja}/value.cpp" "${jinja}/string.cpp"
      TARGET_DIRECTORY llama-common APPEND PROPERTY COMPILE_OPTIONS -include "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/own_strings.h")
  endif()
endfunction()

# cyllama_expect(<file> <text>)
#
# Fails unless the file has the text, of which cyllama has a copy.

function(cyllama_expect file expected)
  file(READ "${file}" text)
  string(FIND "${text}" "${expected}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "llama.cpp has changed: ${file} has no\n${expected}\nThe copy of it in ext/ has to follow.")
  endif()
endfunction()
