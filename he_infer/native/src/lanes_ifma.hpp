// Eight words at a time with AVX-512 IFMA: the low and high 52 bits of 52-bit products.
#pragma once

#include <immintrin.h>

#include "modulus.hpp"
#include "packed.hpp"

namespace he {

struct IfmaLanes {
    using V = __m512i;
    static constexpr int lanes = 8;
    static constexpr int radix = 52;
    static constexpr u64 limit = u64{1} << 50;

    static u64 companion(u64 w, u64 q) {
        return static_cast<u64>((static_cast<u128>(w) << 52) / q);
    }
    static V load(const u64* p) { return _mm512_loadu_si512(p); }
    static void store(u64* p, V v) { _mm512_storeu_si512(p, v); }
    static V broadcast(u64 x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
    static V add(V a, V b) { return _mm512_add_epi64(a, b); }
    static V sub(V a, V b) { return _mm512_sub_epi64(a, b); }
    static V reduce_once(V x, V m) { return _mm512_min_epu64(x, sub(x, m)); }
    static V add_if_above(V x, V digit, V threshold, V addend) {
        return _mm512_mask_add_epi64(x, _mm512_cmpgt_epu64_mask(digit, threshold), x, addend);
    }
    static V mask_nonzero(V x, V digit, const unsigned char* mask, V addend) {
        const V wide =
            _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask)));
        const __mmask8 set = _mm512_test_epi64_mask(wide, wide) &
                             _mm512_test_epi64_mask(digit, digit);
        return _mm512_mask_add_epi64(x, set, x, addend);
    }
    static V low52() { return broadcast((u64{1} << 52) - 1); }
    // x·w mod q in [0, 2q), for x < 2^52
    static V mul_lazy(V x, V w, V companion, V q) {
        const V zero = _mm512_setzero_si512();
        const V negative = sub(broadcast(u64{1} << 52), q);
        const V quotient = _mm512_madd52hi_epu64(zero, x, companion);
        const V product = _mm512_madd52lo_epu64(zero, x, w);
        return _mm512_and_si512(_mm512_madd52lo_epu64(product, quotient, negative), low52());
    }
    static void transpose(V* r) {
        V a[8], b[8];
        for (int i = 0; i < 4; ++i) {
            a[2 * i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
            a[2 * i + 1] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
        }
        for (int h = 0; h < 2; ++h) {
            for (int k = 0; k < 2; ++k) {
                const V x = a[4 * h + k], y = a[4 * h + 2 + k];
                b[4 * h + k] = _mm512_shuffle_i64x2(x, y, 0x88);      // 128-bit lanes 0, 2
                b[4 * h + 2 + k] = _mm512_shuffle_i64x2(x, y, 0xdd);  // lanes 1, 3
            }
        }
        for (int k = 0; k < 4; ++k) {
            const V x = b[k], y = b[4 + k];
            // x: columns of rows 0–3, lanes (c, c+4) of pairs (0,1) then (2,3)
            const int column = k;
            r[column] = _mm512_shuffle_i64x2(x, y, 0x88);
            r[column + 4] = _mm512_shuffle_i64x2(x, y, 0xdd);
        }
    }

    struct Unpack {
        V bytes, shifts, mask;
        explicit Unpack(int bits) : mask(broadcast((u64{1} << bits) - 1)) {
            alignas(64) unsigned char index[64];
            alignas(64) u64 shift[8];
            for (std::size_t k = 0; k < 8; ++k) {
                const std::size_t position = k * static_cast<std::size_t>(bits);
                shift[k] = position % 8;
                for (std::size_t b = 0; b < 8; ++b) {
                    index[8 * k + b] = static_cast<unsigned char>((position / 8 + b) % 64);
                }
            }
            bytes = _mm512_load_si512(index);
            shifts = _mm512_load_si512(shift);
        }
        V operator()(const unsigned char* group, std::size_t) const {
            const V words = _mm512_permutexvar_epi8(bytes, _mm512_loadu_si512(group));
            return _mm512_and_si512(_mm512_srlv_epi64(words, shifts), mask);
        }
    };

    struct Sum {
        V low, high;
    };
    // `high` must stay below 2^52 after the carry of `low` is added: each product adds less than
    // q²/2^52 to it, each low half at most one.
    static constexpr std::size_t terms(u64 q) {
        const u64 step = static_cast<u64>((static_cast<u128>(q) * q) >> 52) + 2;
        const u64 most = ((u64{1} << 52) - 1) / step;
        return most < 1024 ? static_cast<std::size_t>(most) : 1024;
    }
    static Sum zero() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
    static void mac(Sum& s, V a, V b, V, V) {
        s.low = _mm512_madd52lo_epu64(s.low, a, b);
        s.high = _mm512_madd52hi_epu64(s.high, a, b);
    }
    static V value(const Sum& s, const Modulus& m) {
        const V q = broadcast(m.q);
        const V high = add(s.high, _mm512_srli_epi64(s.low, 52));
        const V low = _mm512_and_si512(s.low, low52());
        const V x = mul_lazy(high, broadcast(m.fold.value), broadcast(m.fold.companion), q);
        const V y = mul_lazy(low, broadcast(m.unit.value), broadcast(m.unit.companion), q);
        return reduce_once(reduce_once(add(x, y), add(q, q)), q);
    }
    static Sum start(V x) { return {x, _mm512_setzero_si512()}; }
};

}  // namespace he
