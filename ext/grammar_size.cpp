#include "grammar_size.hpp"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>

namespace {

// Reads the text from its beginning to its end, once.
class Reader {
  public:
    explicit Reader(const std::string & text) : text_(text) {
        while (at_ < text_.size()) {
            look_at(text_[at_++]);
        }
    }

    GrammarSize size() const { return {n_elements_, inverted_}; }

  private:
    static constexpr size_t kMostTimes = 2000; // the parser refuses a larger count, or takes it for "any number"

    void look_at(char c) {
        const size_t begin = at_;
        switch (c) {
            case '"':
                skip('"');
                item(at_ - begin);
                break;
            case '[':
                skip(']');
                item(at_ - begin);
                break;
            case '#': skip('\n'); break;
            case '*':
            case '+':
            case '?': repeat(1, 1); break;
            case '{': {
                const uint64_t least = number(0);
                number(0); // skips the space before a comma
                uint64_t most = least;
                if (at_ < text_.size() && text_[at_] == ',') {
                    ++at_;
                    most = number(UINT64_MAX);
                    inverted_ = inverted_ || most < least;
                }
                repeat(least, most == UINT64_MAX || most > kMostTimes ? least + 1 : most);
                break;
            }
            default:
                if (std::isspace(static_cast<unsigned char>(c)) == 0) {
                    item(1);
                }
        }
    }

    void item(size_t size) {
        size_ = size;
        n_elements_ += size;
    }

    void repeat(uint64_t least, uint64_t most) {
        const size_t times = static_cast<size_t>(std::min<uint64_t>(std::max(least, most), kMostTimes)) + 1;
        size_ = std::min(size_ * times, kMostGrammarElements + 1);
        n_elements_ = std::min(n_elements_ + size_, 2 * kMostGrammarElements);
    }

    void skip(char end) {
        while (at_ < text_.size() && text_[at_] != end) {
            at_ += text_[at_] == '\\' && end != '\n' ? 2 : 1;
        }
        ++at_;
    }

    uint64_t number(uint64_t missing) {
        while (at_ < text_.size() && (std::isspace(static_cast<unsigned char>(text_[at_])) || text_[at_] == '#')) {
            text_[at_] == '#' ? skip('\n') : static_cast<void>(++at_);
        }
        if (at_ >= text_.size() || text_[at_] < '0' || text_[at_] > '9') {
            return missing;
        }
        char * end = nullptr;
        const uint64_t value = std::strtoull(text_.c_str() + at_, &end, 10);
        at_ = static_cast<size_t>(end - text_.c_str());
        return value;
    }

    const std::string & text_;
    size_t at_ = 0, n_elements_ = 0;
    size_t size_ = 0; // elements that a repetition at this place would repeat
    bool inverted_ = false;
};

} // namespace

GrammarSize estimate_grammar_size(const std::string & text) { return Reader(text).size(); }
