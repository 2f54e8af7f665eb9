// A word-sized prime and the constants that each arithmetic path wants beside it.
#pragma once

#include <cstddef>
#include <cstdint>

// Functions in headers that the kernels include are static: each path's file is compiled for
// other instructions, and the linker must not take one file's copy for all.

namespace he {

using u64 = std::uint64_t;
using u128 = unsigned __int128;

static inline u64 mul_mod(u64 a, u64 b, u64 q) { return static_cast<u64>(static_cast<u128>(a) * b % q); }

static inline u64 pow_mod(u64 base, u64 exponent, u64 q) {
    u64 result = 1;
    for (base %= q; exponent != 0; exponent >>= 1) {
        if (exponent & 1) result = mul_mod(result, base, q);
        base = mul_mod(base, base, q);
    }
    return result;
}

static inline u64 inverse_mod(u64 a, u64 q) { return pow_mod(a, q - 2, q); }

// A constant factor w < q with its companion, whose meaning belongs to the arithmetic path.
struct Factor {
    u64 value;
    u64 companion;
};

// What a path needs to know about one modulus. `fold` is 2^radix mod q, used to join the two
// halves of a wide sum; `unit` is the factor 1, whose product reduces any word.
struct Modulus {
    u64 q;
    Factor fold;
    Factor unit;
};

struct Twiddles {
    std::size_t n;
    int log_n;
    // Powers of the root in bit-reversed order (as SEAL has them), and of its inverse;
    // companions lie beside. The `tail` tables hold the last stages' factors lane by lane.
    const u64 *root, *root_companion;
    const u64 *inverse, *inverse_companion;
    const u64 *tail, *tail_companion;
    const u64 *inverse_tail, *inverse_tail_companion;
    Factor n_inverse;       // 1/n
    Factor last_n_inverse;  // the last inverse stage's root over n
};

}  // namespace he
