#include "conversion.hpp"

nb::str to_str(const std::string & text) {
    return nb::steal<nb::str>(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

nb::str path_to_str(const std::string & path) {
    return nb::steal<nb::str>(PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size())));
}

std::string to_path(nb::handle path) {
    PyObject * bytes = nullptr;
    if (!PyUnicode_FSConverter(path.ptr(), &bytes)) {
        throw nb::python_error();
    }
    const nb::bytes owned = nb::steal<nb::bytes>(bytes);
    return std::string(owned.c_str(), owned.size());
}
