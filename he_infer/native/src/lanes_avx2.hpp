// Four words at a time. AVX2 has no wide integer product, so products of numbers below 2^52 are
// taken in doubles: with h = x·w rounded and l = fma(x, w, −h), x·w = h + l exactly, and
// h − c·q is exact for the nearest quotient c (cf. Shoup, NTL, single-precision MulMod).
#pragma once

#include <immintrin.h>

#include <cstring>

#include "modulus.hpp"
#include "packed.hpp"

namespace he {

struct Avx2Lanes {
    using V = __m256i;
    static constexpr int lanes = 4;
    static constexpr int radix = 52;
    static constexpr u64 limit = u64{1} << 50;

    // The companion of w is the double w/q.
    static u64 companion(u64 w, u64 q) {
        const double ratio = static_cast<double>(w) / static_cast<double>(q);
        u64 bits;
        std::memcpy(&bits, &ratio, sizeof bits);
        return bits;
    }
    static V load(const u64* p) { return _mm256_loadu_si256(reinterpret_cast<const V*>(p)); }
    static void store(u64* p, V v) { _mm256_storeu_si256(reinterpret_cast<V*>(p), v); }
    static V broadcast(u64 x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
    static V add(V a, V b) { return _mm256_add_epi64(a, b); }
    static V sub(V a, V b) { return _mm256_sub_epi64(a, b); }
    static V reduce_once(V x, V m) {
        const V less = _mm256_cmpgt_epi64(m, x);
        return sub(x, _mm256_andnot_si256(less, m));
    }
    static V add_if_above(V x, V digit, V threshold, V addend) {
        return add(x, _mm256_and_si256(_mm256_cmpgt_epi64(digit, threshold), addend));
    }
    static V mask_nonzero(V x, V digit, const unsigned char* mask, V addend) {
        std::int32_t four;
        std::memcpy(&four, mask, sizeof four);
        const V wide = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
        const V zero = _mm256_setzero_si256();
        const V keep = _mm256_or_si256(_mm256_cmpeq_epi64(wide, zero),
                                       _mm256_cmpeq_epi64(digit, zero));
        return add(x, _mm256_andnot_si256(keep, addend));
    }
    static __m256d to_double(V x) {  // x < 2^52
        const V magic = broadcast(0x4330000000000000);
        return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(x, magic)),
                             _mm256_castsi256_pd(magic));
    }
    static V from_double(__m256d x) {  // 0 ≤ x < 2^52, whole
        const V magic = broadcast(0x4330000000000000);
        return _mm256_xor_si256(
            _mm256_castpd_si256(_mm256_add_pd(x, _mm256_castsi256_pd(magic))), magic);
    }
    static V product(__m256d x, __m256d w, __m256d quotient, __m256d q) {
        const __m256d h = _mm256_mul_pd(x, w);
        const __m256d l = _mm256_fmsub_pd(x, w, h);
        const __m256d c =
            _mm256_round_pd(quotient, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        // c is within 2 of the true quotient, so this lies in (−2q, 2q).
        const __m256d r = _mm256_add_pd(_mm256_fnmadd_pd(c, q, h), l);
        const __m256d negative = _mm256_cmp_pd(r, _mm256_setzero_pd(), _CMP_LT_OQ);
        return from_double(_mm256_add_pd(r, _mm256_and_pd(negative, _mm256_add_pd(q, q))));
    }
    static V mul_lazy(V x, V w, V companion, V q) {
        const __m256d xd = to_double(x);
        return product(xd, to_double(w), _mm256_mul_pd(xd, _mm256_castsi256_pd(companion)),
                       to_double(q));
    }
    static void transpose(V* r) {
        const V a = _mm256_unpacklo_epi64(r[0], r[1]), b = _mm256_unpackhi_epi64(r[0], r[1]);
        const V c = _mm256_unpacklo_epi64(r[2], r[3]), d = _mm256_unpackhi_epi64(r[2], r[3]);
        r[0] = _mm256_permute2x128_si256(a, c, 0x20);
        r[1] = _mm256_permute2x128_si256(b, d, 0x20);
        r[2] = _mm256_permute2x128_si256(a, c, 0x31);
        r[3] = _mm256_permute2x128_si256(b, d, 0x31);
    }

    struct Unpack {
        int bits;
        V mask;
        explicit Unpack(int width) : bits(width), mask(broadcast((u64{1} << width) - 1)) {}
        V operator()(const unsigned char* group, std::size_t lane) const {
            u64 words[4];
            long long shifts[4];
            for (std::size_t k = 0; k < 4; ++k) {
                const std::size_t position = (lane + k) * static_cast<std::size_t>(bits);
                std::memcpy(&words[k], group + position / 8, sizeof words[k]);
                shifts[k] = static_cast<long long>(position % 8);
            }
            const V shift = _mm256_setr_epi64x(shifts[0], shifts[1], shifts[2], shifts[3]);
            return _mm256_and_si256(_mm256_srlv_epi64(load(words), shift), mask);
        }
    };

    struct Sum {
        V value;  // below 2q
    };
    static constexpr std::size_t terms(u64) { return ~std::size_t{0}; }
    static Sum zero() { return {_mm256_setzero_si256()}; }
    static void mac(Sum& s, V a, V b, V q, V inverse) {
        const __m256d x = to_double(a), w = to_double(b);
        const __m256d quotient =
            _mm256_mul_pd(_mm256_mul_pd(x, w), _mm256_castsi256_pd(inverse));
        s.value = reduce_once(add(s.value, product(x, w, quotient, to_double(q))), add(q, q));
    }
    static V value(const Sum& s, const Modulus& m) { return reduce_once(s.value, broadcast(m.q)); }
    static Sum start(V x) { return {x}; }
};

}  // namespace he
