// Sets of places in a grammar, for GrammarMachine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

/// Where a way of reading goes on: the position of an element, and the frame to return to at the end of its rule.
struct GrammarItem {
    uint32_t position, frame;

    bool operator==(const GrammarItem & other) const { return position == other.position && frame == other.frame; }
    bool operator<(const GrammarItem & other) const {
        return position != other.position ? position < other.position : frame < other.frame;
    }
    uint64_t key() const { return (uint64_t{position} << 32) | frame; }
};

using GrammarItems = std::vector<GrammarItem>;

/// The finalizer of SplitMix64, as a hash.
inline uint64_t mix(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
    return value ^ (value >> 31);
}

/// Sets of items, each stored once, by index.
class GrammarItemSets {
  public:
    /// Returns the index of a set of sorted items; `is_new`: it was not stored yet.
    uint32_t add(const GrammarItems & items, bool & is_new);
    const GrammarItem * begin(uint32_t set) const { return items_.data() + ends_[set]; }
    const GrammarItem * end(uint32_t set) const { return items_.data() + ends_[set + 1]; }
    size_t size() const { return ends_.size() - 1; }
    size_t n_items() const { return items_.size(); }

  private:
    GrammarItems items_;
    std::vector<size_t> ends_{0};
    std::unordered_multimap<uint64_t, uint32_t> by_hash_;
};

/// The items that one step has reached. A hash table with open addressing; an entry is valid in the step that wrote it.
class GrammarSeenItems {
  public:
    /// Empties the table. Returns true after 2^32 steps, when they are counted from 1 again.
    bool begin_step();
    uint32_t step() const { return step_; }
    /// Adds an item; returns whether it is new in this step.
    bool add(GrammarItem item);

  private:
    void grow();

    std::vector<uint64_t> keys_ = std::vector<uint64_t>(1024);
    std::vector<uint32_t> steps_ = std::vector<uint32_t>(1024); // in which the key was written
    size_t n_ = 0;
    uint32_t step_ = 0;
};
