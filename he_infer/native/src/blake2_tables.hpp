// BLAKE2b's constants and its round, for words and for vectors of words (RFC 7693).
#pragma once

#include "modulus.hpp"

namespace he {

constexpr u64 kBlake2Initial[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b,
                             0xa54ff53a5f1d36f1, 0x510e527fade682d1, 0x9b05688c2b3e6c1f,
                             0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
constexpr unsigned char kBlake2Sigma[12][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3}};

template <class T>
static inline T blake2_rotate(T x, int bits) {
    return (x >> bits) | (x << (64 - bits));
}

template <class T>
static inline void blake2_mix(T* v, int a, int b, int c, int d, T x, T y) {
    v[a] += v[b] + x;
    v[d] = blake2_rotate<T>(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = blake2_rotate<T>(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = blake2_rotate<T>(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = blake2_rotate<T>(v[b] ^ v[c], 63);
}

template <class T>
static inline void blake2_round(T* v, const T* m, const unsigned char* s) {
    blake2_mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
    blake2_mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
    blake2_mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
    blake2_mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
    blake2_mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
    blake2_mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
    blake2_mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
    blake2_mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
}

}  // namespace he
