// Text in UTF-8, as tokens have it and as llama.cpp writes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// Which bytes keep a text of tokens from being valid UTF-8.
namespace utf8 {

constexpr unsigned char kNever = 1; // the kind of a token with bytes that UTF-8 never has

/// The kind of a token: 0 if it may follow any whole character, kNever, or its first byte if that continues a character.
unsigned char kind(const std::string & piece);

/// Whether `byte`, which continues a character, must not follow that character's first byte.
bool is_invalid_after(unsigned char lead, unsigned char byte);

} // namespace utf8

/// `text` with every byte that is not valid UTF-8 replaced by U+FFFD.
std::string valid_utf8(const std::string & text);

/// Text that `read_into(buffer, size)` writes as snprintf() does; empty where it returns a negative length.
template <class Read> std::string read_string(Read read_into) {
    std::vector<char> buffer(256);
    int32_t length = read_into(buffer.data(), buffer.size());
    if (length >= static_cast<int32_t>(buffer.size())) {
        buffer.resize(static_cast<size_t>(length) + 1);
        length = read_into(buffer.data(), buffer.size());
    }
    return length < 0 ? std::string() : std::string(buffer.data(), static_cast<size_t>(length));
}
