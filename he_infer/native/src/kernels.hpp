// The loops over residues that each arithmetic path provides. All results are fully reduced,
// so the paths agree bit for bit; the portable one is the specification.
#pragma once

#include "modulus.hpp"
#include "packed.hpp"

namespace he {

// Which coefficients of a digit get q_i subtracted before it is read modulo another prime.
enum class Lift { centred, flipped };

constexpr std::size_t kCombined = 64;

// One row of a plaintext. run 0: packed words, one a coefficient. Otherwise plain words, each
// meant for 2^run neighbouring coefficients.
struct Weights {
    const void* data;
    int run;
};

struct Kernels {
    const char* name;
    int lanes;
    u64 limit;  // moduli must be below this
    u64 (*companion)(u64 w, u64 q);
    int radix;  // bits of the word in which wide sums are split
    void (*forward)(u64* x, const Twiddles&, const Modulus&);
    void (*inverse)(u64* x, const Twiddles&, const Modulus&);
    void (*add)(u64* out, const u64* a, const u64* b, std::size_t n, const Modulus&);
    void (*multiply)(u64* out, const u64* a, const u64* b, std::size_t n, const Modulus&);
    // out = a0·b1 + a1·b0
    void (*cross)(u64* out, const u64* a0, const u64* b1, const u64* a1, const u64* b0,
                  std::size_t n, const Modulus&);
    // out = a·w (+ out)
    void (*scale)(u64* out, const u64* a, Factor w, std::size_t n, const Modulus&);
    void (*scale_add)(u64* out, const u64* a, Factor w, std::size_t n, const Modulus&);
    // out = (a − b)·w
    void (*subtract_scale)(u64* out, const u64* a, const u64* b, Factor w, std::size_t n,
                           const Modulus&);
    // (out0, out1) = Σ_t plain[t]·(a0[t], a1[t])
    void (*weighted)(u64* out0, u64* out1, const u64* const* a0, const u64* const* a1,
                     const Weights* plain, std::size_t terms, std::size_t n, const Modulus&);
    // (out0, out1) = Σ_i digits[i]·(b_i, a_i); `key` holds, for each group of coefficients, the
    // packed words of b_0, a_0, b_1, a_1, … of `stored` digits, in the order of reading.
    void (*switch_row)(u64* out0, u64* out1, const u64* const* digits, const unsigned char* key,
                       std::size_t terms, std::size_t stored, std::size_t n, const Modulus&);
    // kCombined words: out = Σ_t w[t]·a[columns[t]], scalars w, kCombined words a column in `a`
    void (*combine)(u64* out, const u64* a, const std::int32_t* columns, const u64* w,
                    std::size_t terms, const Modulus&);
    // A digit in [0, source) as a signed number, modulo another prime. centred: from −source/2;
    // flipped: `mask` (one byte a coefficient) says where `source` is subtracted from non-zeros.
    void (*lift)(u64* out, const u64* digit, u64 source, Lift how, const unsigned char* mask,
                 std::size_t n, const Modulus&);
    // Eight leaves of BLAKE2Xb; see blake2_leaves.hpp.
    void (*leaves)(u64* out, const u64* root, const u64* common, u64 first);
    void (*permute)(u64* out, const u64* a, const std::uint32_t* table, std::size_t n);
};

const Kernels& scalar_kernels();
const Kernels* avx2_kernels();  // null where the build has none
const Kernels* ifma_kernels();

}  // namespace he
