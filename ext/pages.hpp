// Memory straight from the operating system.
#pragma once

#include <cstddef>
#include <cstdint>

/// A buffer of `size` bytes. States are large, come and go: the destructor gives the memory back to the system at once.
class Pages {
  public:
    /// Throws std::bad_alloc.
    explicit Pages(size_t size);
    ~Pages();
    Pages(const Pages &) = delete;
    Pages & operator=(const Pages &) = delete;

    uint8_t * data() const { return data_; }
    size_t size() const { return size_; }

  private:
    uint8_t * data_;
    const size_t size_;
};
