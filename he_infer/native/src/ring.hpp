// One ring with its moduli q_0 … q_L and P: transforms, automorphisms and divisions.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "buffer.hpp"
#include "kernels.hpp"

namespace he {

// An automorphism X → X^g: `table` permutes values in NTT order, `flips` marks coefficients
// whose sign turns.
struct Automorphism {
    std::vector<std::uint32_t> table;
    std::vector<unsigned char> flips;
};

struct Prime {
    const Kernels* kernels;
    Modulus modulus;
    Modulus portable;  // the same with the scalar path's companions
    Twiddles twiddles;
    std::vector<u64> storage;
    Factor factor(u64 w) const { return {w, kernels->companion(w, modulus.q)}; }
};

class Ring {
   public:
    // `moduli`: data primes and last the special one. `path`: scalar, avx2, ifma or best.
    Ring(std::size_t n, std::vector<u64> moduli, const std::string& path);

    std::size_t n() const { return n_; }
    int top() const { return static_cast<int>(primes_.size()) - 2; }
    int special() const { return static_cast<int>(primes_.size()) - 1; }
    const Prime& prime(int index) const { return primes_[static_cast<std::size_t>(index)]; }
    const std::vector<u64>& moduli() const { return moduli_; }
    const std::string& path() const { return path_; }

    // The modulus of row r of an extended polynomial at `level`: q_0 … q_level, P.
    const Prime& row(int level, int r) const { return prime(r <= level ? r : special()); }

    void forward(u64* x, const Prime& p) const { p.kernels->forward(x, p.twiddles, p.modulus); }
    void inverse(u64* x, const Prime& p) const { p.kernels->inverse(x, p.twiddles, p.modulus); }
    void lift(u64* out, const u64* digit, u64 source, Lift how, const unsigned char* mask,
              const Prime& target) const;

    // Divides by the last modulus with rounding: rows of `moduli` in NTT form, `poly` is
    // (count, n); `out` (count − 1, n) may be the same memory. Equal to SEAL's.
    void divide_last(u64* out, const u64* poly, const std::vector<int>& rows, int threads) const;
    // Divides an extended polynomial at `level` by P and then by q_level.
    void divide_twice(u64* out, const u64* poly, int level, int threads) const;

    const Automorphism& automorphism(std::uint32_t element) const;
    u64 inverse_of(int divisor, int modulus) const;  // prime(divisor)^−1 mod prime(modulus)

   private:
    std::size_t n_;
    std::vector<u64> moduli_;
    std::string path_;
    std::vector<Prime> primes_;
    mutable std::mutex mutex_;
    mutable std::map<std::uint32_t, std::unique_ptr<Automorphism>> automorphisms_;
};

std::vector<std::string> available_paths();

}  // namespace he
