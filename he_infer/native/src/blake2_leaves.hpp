// Eight leaves of BLAKE2Xb at once: they hash one message under parameters that differ in the
// leaf's number only, so each lane of a vector runs one of them.
#pragma once

#include "blake2_tables.hpp"

namespace he {

// 64 words: the leaves `first` … `first` + 7 of the given root, which names the leaves' common
// parameters in `common` (BLAKE2b's initial state with leaf number 0).
static inline void blake2_leaves(u64* out, const u64* root, const u64* common, u64 first) {
    using V = u64 __attribute__((vector_size(64)));
    const auto all = [](u64 x) -> V { return V{x, x, x, x, x, x, x, x}; };
    V v[16], h[8], m[16];
    for (int i = 0; i < 8; ++i) {
        h[i] = all(common[i]);
        m[i] = all(root[i]);
        m[i + 8] = all(0);
    }
    h[1] ^= all(first) + V{0, 1, 2, 3, 4, 5, 6, 7};  // the leaf's number: low half of word 1
    for (int i = 0; i < 8; ++i) {
        v[i] = h[i];
        v[i + 8] = all(kBlake2Initial[i]);
    }
    v[12] ^= all(64);  // bytes hashed
    v[14] = ~v[14];    // the last block
    for (const auto& s : kBlake2Sigma) blake2_round(v, m, s);
    for (int i = 0; i < 8; ++i) {
        h[i] ^= v[i] ^ v[i + 8];
        for (int lane = 0; lane < 8; ++lane) out[8 * lane + i] = h[i][lane];
    }
}

}  // namespace he
