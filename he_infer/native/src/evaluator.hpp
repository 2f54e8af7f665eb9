// CKKS evaluation over one Ring: everything a server does to ciphertexts. Public data only.
//
// Polynomials are rows of residues in NTT form. An *extended* polynomial at level l has the
// rows q_0 … q_l, P; it stands for P times its value until it is divided by P.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "ring.hpp"

namespace he {

// Rows (size, level + 1, n).
struct Ciphertext {
    int size, level;
    std::size_t n;
    Words words;
    u64* poly(int i) const {
        return words.get() + static_cast<std::size_t>(i) * static_cast<std::size_t>(level + 1) * n;
    }
    std::size_t count() const {
        return static_cast<std::size_t>(size) * static_cast<std::size_t>(level + 1) * n;
    }
};
using CiphertextPtr = std::shared_ptr<const Ciphertext>;

// Rows q_0 … q_level, and P if `extended`, as Weights: `starts` are their places in `bytes`.
struct Plaintext {
    int level;
    bool extended;
    int run;
    std::size_t n;
    std::vector<unsigned char> bytes;
    std::vector<std::size_t> starts;
    Weights row(int r) const { return {bytes.data() + starts[static_cast<std::size_t>(r)], run}; }
};
using PlaintextPtr = std::shared_ptr<const Plaintext>;

// A key for the automorphism `element` (1: relinearisation), usable up to `level`: for each row
// of q_0 … q_level, P, the words b_i, a_i of all digits i, as Kernels::switch_row reads them.
// They are kept under the inverse automorphism, so that digits are multiplied as they are and
// only the sum is permuted.
struct SwitchKey {
    std::uint32_t element;
    int level;
    std::size_t n;
    std::vector<unsigned char> bytes;
    std::vector<std::size_t> starts;  // of each row
    std::vector<int> bits;            // of each row's prime
    std::size_t digits() const { return static_cast<std::size_t>(level) + 1; }
    const unsigned char* row(std::size_t r) const { return bytes.data() + starts[r]; }
    // The group in which word k of polynomial `poly` (0: b, 1: a) of a digit lies.
    unsigned char* group(std::size_t digit, std::size_t poly, std::size_t r, std::size_t k) {
        const std::size_t number = (k / kGroup * digits() + digit) * 2 + poly;
        return bytes.data() + starts[r] + number * static_cast<std::size_t>(bits[r]);
    }
};
using SwitchKeys = std::map<std::uint32_t, std::shared_ptr<const SwitchKey>>;

// Σ over groups, from the first to the last: add the group's products to the total, then apply
// `then` to it; afterwards each of `folds` in turn is applied and the result added.
struct Product {
    int source;
    std::uint32_t element;  // of the automorphism applied to the source first; 1: none
    PlaintextPtr plain;
};
struct Group {
    std::vector<Product> products;
    std::uint32_t then;
};
struct Transform {
    int level;
    std::vector<std::vector<Group>> targets;
    std::vector<std::uint32_t> folds;
    int sources() const;
    bool hoists() const;  // some source is rotated, so plaintexts must be extended
};

// Weights of Σ_s w[t, s]·x[s] in compressed rows, as signed integers below 2^62.
struct SparseWeights {
    std::vector<std::int64_t> starts;
    std::vector<std::int32_t> columns;
    std::vector<std::int64_t> values;
};

class Evaluator {
   public:
    explicit Evaluator(const Ring& ring) : ring_(ring) {}

    std::unique_ptr<Ciphertext> blank(int size, int level) const;
    std::unique_ptr<Ciphertext> add(const Ciphertext& a, const Ciphertext& b) const;
    std::unique_ptr<Ciphertext> add_plain(const Ciphertext& a, const Plaintext& p) const;
    // `coefficients`: n signed integers, of absolute value below every prime up to a's level.
    std::unique_ptr<Ciphertext> add_integers(const Ciphertext& a,
                                             const std::int64_t* coefficients) const;
    std::unique_ptr<Ciphertext> multiply_plain(const Ciphertext& a, const Plaintext& p) const;
    std::unique_ptr<Ciphertext> multiply(const Ciphertext& a, const Ciphertext& b) const;
    std::unique_ptr<Ciphertext> rescale(const Ciphertext& a, int threads) const;
    std::unique_ptr<Ciphertext> drop(const Ciphertext& a, int level) const;
    // Equal to SEAL's results bit for bit.
    std::unique_ptr<Ciphertext> relinearize(const Ciphertext& a, const SwitchKey& key,
                                            int threads) const;
    std::unique_ptr<Ciphertext> rotate(const Ciphertext& a, const SwitchKey& key,
                                       int threads) const;
    // The transform and a rescale: digits of a source are shared by its rotations (hoisting),
    // and the division by P waits until after the sums (double hoisting), where it is joined
    // with the rescale.
    std::vector<std::unique_ptr<Ciphertext>> transform(const Transform& t,
                                                       const std::vector<CiphertextPtr>& sources,
                                                       const SwitchKeys& keys,
                                                       int threads) const;
    // Σ_s w[t, s]·x[s] for every t; no rescale.
    std::vector<std::unique_ptr<Ciphertext>> combine(const SparseWeights& weights,
                                                     const std::vector<CiphertextPtr>& sources,
                                                     int threads) const;
    // An encryption of zero at level l under the public key (the first l + 2 rows of
    // q_0 … q_L, P of b, then of a) with the given small polynomials u, e0, e1; made one prime
    // higher and divided by it.
    std::unique_ptr<Ciphertext> encrypt_zero(int level, const u64* public_key,
                                             const signed char* small) const;

    // Digits of a polynomial at `level`: (level + 1 digits) × (level + 2 rows).
    void decompose(u64* digits, const u64* poly, int level, Lift how, const unsigned char* flips,
                   int threads) const;
    // (out0, out1) extended = Σ digits · key
    void switch_digits(u64* out0, u64* out1, const u64* digits, int level, const SwitchKey& key,
                       int threads) const;

   private:
    struct Sum;
    void switch_row(u64* out0, u64* out1, const u64* digits, int level, const SwitchKey& key,
                    std::size_t r) const;
    void sum_row(const Transform& t, const std::vector<CiphertextPtr>& sources,
                 const SwitchKeys& keys, const std::map<int, const u64*>& digits, std::size_t r,
                 const std::vector<u64*>& sums) const;
    void join(Sum& total, const Sum& part, int level, int threads) const;
    void rotate_sum(Sum& sum, int level, const SwitchKey& key, int threads) const;
    void raise(u64* out, const u64* poly, int level) const;  // times P
    const Ring& ring_;
};

}  // namespace he
