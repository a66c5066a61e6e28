#include "text.hpp"

// llama.cpp's grammars take an overlong encoding for the character that it would stand for. So a text of byte tokens could
// fit a grammar and not be valid UTF-8.
namespace utf8 {

namespace {

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

} // namespace

bool is_invalid_after(unsigned char lead, unsigned char byte) {
    return (lead == 0xE0 && byte < 0xA0) || (lead == 0xED && byte > 0x9F) || (lead == 0xF0 && byte < 0x90) ||
           (lead == 0xF4 && byte > 0x8F);
}

unsigned char kind(const std::string & piece) {
    size_t missing = 0; // bytes of the character in progress
    for (size_t i = 0; i < piece.size(); ++i) {
        const auto byte = static_cast<unsigned char>(piece[i]);
        const auto before = static_cast<unsigned char>(i ? piece[i - 1] : 0);
        if (byte == 0 || byte == 0xC0 || byte == 0xC1 || byte > 0xF4 ||
            (is_continuation(byte) && is_invalid_after(before, byte)) || (missing && !is_continuation(byte))) {
            return kNever;
        }
        missing = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : byte >= 0xC0 ? 1 : missing ? missing - 1 : 0;
    }
    return !piece.empty() && is_continuation(static_cast<unsigned char>(piece[0])) ? static_cast<unsigned char>(piece[0])
                                                                                   : 0;
}

} // namespace utf8

std::string valid_utf8(const std::string & text) {
    std::string result;
    for (size_t i = 0; i < text.size();) {
        const auto lead = static_cast<unsigned char>(text[i]);
        const size_t size = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
        bool valid = size > 0 && i + size <= text.size();
        for (size_t k = 1; valid && k < size; ++k) {
            const auto byte = static_cast<unsigned char>(text[i + k]);
            valid = (byte & 0xC0) == 0x80 && (k > 1 || !utf8::is_invalid_after(lead, byte));
        }
        result += valid ? text.substr(i, size) : "\xEF\xBF\xBD";
        i += valid ? size : 1;
    }
    return result;
}
