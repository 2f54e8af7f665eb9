// Residues in as many bits as their prime has. Keys and weights are read once a query, so the
// time to multiply by them is the time to fetch them: a third less of it.
#pragma once

#include <cstring>

#include "modulus.hpp"

namespace he {

constexpr std::size_t kGroup = 8;          // words packed together, into `bits` bytes
constexpr std::size_t kPackedPadding = 64;  // readable bytes behind the last group

static inline int bits_of(u64 q) {
    int bits = 0;
    while (q >> bits != 0) ++bits;
    return bits;
}

// Word k of a group. Bits must be 57 or fewer for one unaligned read to hold a word.
static inline u64 packed_word(const unsigned char* group, int bits, std::size_t k) {
    const std::size_t position = k * static_cast<std::size_t>(bits);
    const u64 mask = (u64{1} << bits) - 1;
    u64 word;
    std::memcpy(&word, group + position / 8, sizeof word);
    word >>= position % 8;
    if (bits > 57) {
        u64 next;
        std::memcpy(&next, group + position / 8 + 7, sizeof next);
        word = (word & ((u64{1} << (56 - position % 8)) - 1)) | (next << (56 - position % 8));
    }
    return word & mask;
}

// Adds a word to a group of zeros (or of other words).
static inline void put_packed_word(unsigned char* group, int bits, std::size_t k, u64 word) {
    const std::size_t position = k * static_cast<std::size_t>(bits);
    unsigned char* byte = group + position / 8;
    const u128 shifted = static_cast<u128>(word) << (position % 8);
    const std::size_t used = (position % 8 + static_cast<std::size_t>(bits) + 7) / 8;
    for (std::size_t i = 0; i < used; ++i) {
        byte[i] = static_cast<unsigned char>(byte[i] | static_cast<unsigned char>(shifted >> (8 * i)));
    }
}

}  // namespace he
