// One word at a time, with 128-bit products: the specification of the other paths.
#pragma once

#include "modulus.hpp"
#include "packed.hpp"

namespace he {

struct ScalarLanes {
    using V = u64;
    static constexpr int lanes = 1;
    static constexpr int radix = 64;
    static constexpr u64 limit = u64{1} << 61;

    static u64 companion(u64 w, u64 q) {
        return static_cast<u64>((static_cast<u128>(w) << 64) / q);
    }
    static V load(const u64* p) { return *p; }
    static void store(u64* p, V v) { *p = v; }
    static V broadcast(u64 x) { return x; }
    static V add(V a, V b) { return a + b; }
    static V sub(V a, V b) { return a - b; }
    // x − m if x ≥ m; both below 2^63
    static V reduce_once(V x, V m) { return x >= m ? x - m : x; }
    static V add_if_above(V x, V threshold_source, V threshold, V addend) {
        return threshold_source > threshold ? x + addend : x;
    }
    static V mask_nonzero(V x, V digit, const unsigned char* mask, V addend) {
        return *mask != 0 && digit != 0 ? x + addend : x;
    }
    // x·w mod q in [0, 2q) for any word x
    static V mul_lazy(V x, V w, V companion, V q) {
        const u64 quotient = static_cast<u64>((static_cast<u128>(x) * companion) >> 64);
        return x * w - quotient * q;
    }
    static void transpose(V*) {}

    struct Unpack {
        int bits;
        explicit Unpack(int width) : bits(width) {}
        V operator()(const unsigned char* group, std::size_t lane) const {
            return packed_word(group, bits, lane);
        }
    };

    // A sum of products, two words wide.
    struct Sum {
        u128 value;
    };
    // Products are below 2^122, so 32 of them and a reduced rest stay within 128 bits.
    static constexpr std::size_t terms(u64) { return 32; }
    static Sum zero() { return {0}; }
    static void mac(Sum& s, V a, V b, V, V) { s.value += static_cast<u128>(a) * b; }
    static V value(const Sum& s, const Modulus& m) {
        const u64 high = static_cast<u64>(s.value >> 64), low = static_cast<u64>(s.value);
        V x = mul_lazy(high, m.fold.value, m.fold.companion, m.q);
        V y = mul_lazy(low, m.unit.value, m.unit.companion, m.q);
        return reduce_once(reduce_once(x + y, 2 * m.q), m.q);
    }
    static Sum start(V x) { return {x}; }
};

}  // namespace he
