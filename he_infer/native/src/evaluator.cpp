#include "evaluator.hpp"

#include <algorithm>

#include "parallel.hpp"
#include "rows.hpp"

namespace he {
namespace {

// Signed integers of absolute value below q, modulo q.
template <class T>
void residues(u64* out, const T* x, std::size_t n, u64 q) {
    for (std::size_t k = 0; k < n; ++k) {
        const auto value = static_cast<std::int64_t>(x[k]);
        out[k] = static_cast<u64>(value) + (value < 0 ? q : 0);
    }
}

void subtract(u64* x, const u64* y, std::size_t n, u64 q) {
    for (std::size_t k = 0; k < n; ++k) x[k] = x[k] < y[k] ? x[k] - y[k] + q : x[k] - y[k];
}

}  // namespace

std::unique_ptr<Ciphertext> Evaluator::blank(int size, int level) const {
    auto c = std::make_unique<Ciphertext>();
    c->size = size;
    c->level = level;
    c->n = ring_.n();
    c->words = make_words(z(size) * z(level + 1) * ring_.n());
    return c;
}

std::unique_ptr<Ciphertext> Evaluator::add(const Ciphertext& a, const Ciphertext& b) const {
    const Ciphertext& longer = a.size >= b.size ? a : b;
    auto out = blank(longer.size, a.level);
    const std::size_t n = ring_.n();
    for (int i = 0; i < out->size; ++i) {
        for (int r = 0; r <= a.level; ++r) {
            const std::size_t at = z(r) * n;
            if (i < a.size && i < b.size) {
                const Prime& p = ring_.prime(r);
                p.kernels->add(out->poly(i) + at, a.poly(i) + at, b.poly(i) + at, n, p.modulus);
            } else {
                std::copy_n(longer.poly(i) + at, n, out->poly(i) + at);
            }
        }
    }
    return out;
}

std::unique_ptr<Ciphertext> Evaluator::add_plain(const Ciphertext& a, const Plaintext& p) const {
    auto out = drop(a, a.level);
    const std::size_t n = ring_.n();
    Words wide = make_words(n);
    for (int r = 0; r <= a.level; ++r) {
        const Prime& prime = ring_.prime(r);
        const void* row = p.row(r).data;
        const int bits = bits_of(prime.modulus.q);
        for (std::size_t i = 0; i < n; ++i) {
            wide[i] = p.run != 0 ? static_cast<const u64*>(row)[i >> p.run]
                                 : packed_word(static_cast<const unsigned char*>(row) +
                                                   i / kGroup * z(bits),
                                               bits, i % kGroup);
        }
        u64* x = out->poly(0) + z(r) * n;
        prime.kernels->add(x, x, wide.get(), n, prime.modulus);
    }
    return out;
}

std::unique_ptr<Ciphertext> Evaluator::multiply_plain(const Ciphertext& a,
                                                      const Plaintext& p) const {
    auto out = blank(a.size, a.level);
    const std::size_t n = ring_.n();
    Words spare = make_words(n);
    for (int i = 0; i < a.size; i += 2) {
        for (int r = 0; r <= a.level; ++r) {
            const Prime& prime = ring_.prime(r);
            const std::size_t at = z(r) * n;
            const bool two = i + 1 < a.size;
            const u64* first = a.poly(i) + at;
            const u64* second = two ? a.poly(i + 1) + at : first;
            const Weights plain = p.row(r);
            prime.kernels->weighted(out->poly(i) + at, two ? out->poly(i + 1) + at : spare.get(),
                                    &first, &second, &plain, 1, n, prime.modulus);
        }
    }
    return out;
}

std::unique_ptr<Ciphertext> Evaluator::multiply(const Ciphertext& a, const Ciphertext& b) const {
    auto out = blank(3, a.level);
    const std::size_t n = ring_.n();
    for (int r = 0; r <= a.level; ++r) {
        const Prime& p = ring_.prime(r);
        const std::size_t at = z(r) * n;
        const u64 *a0 = a.poly(0) + at, *a1 = a.poly(1) + at;
        const u64 *b0 = b.poly(0) + at, *b1 = b.poly(1) + at;
        p.kernels->multiply(out->poly(0) + at, a0, b0, n, p.modulus);
        p.kernels->cross(out->poly(1) + at, a0, b1, a1, b0, n, p.modulus);
        p.kernels->multiply(out->poly(2) + at, a1, b1, n, p.modulus);
    }
    return out;
}

std::unique_ptr<Ciphertext> Evaluator::rescale(const Ciphertext& a, int threads) const {
    auto out = blank(a.size, a.level - 1);
    const auto rows = data_rows(a.level);
    for (int i = 0; i < a.size; ++i) ring_.divide_last(out->poly(i), a.poly(i), rows, threads);
    return out;
}

std::unique_ptr<Ciphertext> Evaluator::drop(const Ciphertext& a, int level) const {
    auto out = blank(a.size, level);
    for (int i = 0; i < a.size; ++i) {
        std::copy_n(a.poly(i), z(level + 1) * ring_.n(), out->poly(i));
    }
    return out;
}

void Evaluator::decompose(u64* digits, const u64* poly, int level, Lift how,
                          const unsigned char* flips, int threads) const {
    Arena arena;
    const std::size_t n = ring_.n(), rows = z(level + 2);
    u64* coefficients = arena.take(z(level + 1) * n);
    parallel_for(threads, z(level + 1), [&](std::size_t i) {
        std::copy_n(poly + i * n, n, coefficients + i * n);
        ring_.inverse(coefficients + i * n, ring_.prime(static_cast<int>(i)));
    });
    parallel_for(threads, z(level + 1) * rows, [&](std::size_t task) {
        const std::size_t i = task / rows, r = task % rows;
        u64* out = digits + task * n;
        if (i == r) {
            std::copy_n(poly + i * n, n, out);
            return;
        }
        const Prime& target = ring_.row(level, static_cast<int>(r));
        ring_.lift(out, coefficients + i * n, ring_.moduli()[i], how, flips, target);
        ring_.forward(out, target);
    });
}

void Evaluator::switch_row(u64* out0, u64* out1, const u64* digits, int level,
                           const SwitchKey& key, std::size_t r) const {
    const std::size_t n = ring_.n(), rows = z(level + 2);
    const Prime& p = ring_.row(level, static_cast<int>(r));
    const std::size_t key_row = r < rows - 1 ? r : key.digits();
    std::vector<const u64*> d(z(level + 1));
    for (std::size_t i = 0; i < d.size(); ++i) d[i] = digits + (i * rows + r) * n;
    p.kernels->switch_row(out0, out1, d.data(), key.row(key_row), d.size(), key.digits(), n,
                          p.modulus);
}

void Evaluator::switch_digits(u64* out0, u64* out1, const u64* digits, int level,
                              const SwitchKey& key, int threads) const {
    parallel_for(threads, z(level + 2), [&](std::size_t r) {
        const std::size_t at = r * ring_.n();
        switch_row(out0 + at, out1 + at, digits, level, key, r);
    });
}

void Evaluator::raise(u64* out, const u64* poly, int level) const {
    const std::size_t n = ring_.n();
    const u64 special = ring_.moduli().back();
    for (int r = 0; r <= level; ++r) {
        const Prime& p = ring_.prime(r);
        p.kernels->scale(out + z(r) * n, poly + z(r) * n, p.factor(special % p.modulus.q), n,
                         p.modulus);
    }
    std::fill_n(out + z(level + 1) * n, n, u64{0});
}

std::unique_ptr<Ciphertext> Evaluator::relinearize(const Ciphertext& a, const SwitchKey& key,
                                                   int threads) const {
    Arena arena;
    const std::size_t n = ring_.n(), rows = z(a.level + 2);
    u64* digits = arena.take(z(a.level + 1) * rows * n);
    decompose(digits, a.poly(2), a.level, Lift::flipped, nullptr, threads);
    u64* sums = arena.take(2 * rows * n);
    switch_digits(sums, sums + rows * n, digits, a.level, key, threads);
    auto out = blank(2, a.level);
    const auto moduli = extended_rows(ring_, a.level);
    for (int i = 0; i < 2; ++i) {
        ring_.divide_last(out->poly(i), sums + z(i) * rows * n, moduli, threads);
        for (int r = 0; r <= a.level; ++r) {
            const Prime& p = ring_.prime(r);
            u64* x = out->poly(i) + z(r) * n;
            p.kernels->add(x, x, a.poly(i) + z(r) * n, n, p.modulus);
        }
    }
    return out;
}

std::unique_ptr<Ciphertext> Evaluator::rotate(const Ciphertext& a, const SwitchKey& key,
                                              int threads) const {
    // SEAL permutes first and takes digits of the permuted polynomial in [0, q). Before the
    // permutation these are the digits of a itself, less q wherever a sign will turn.
    Arena arena;
    const std::size_t n = ring_.n(), rows = z(a.level + 2);
    const Automorphism& automorphism = ring_.automorphism(key.element);
    u64* digits = arena.take(z(a.level + 1) * rows * n);
    decompose(digits, a.poly(1), a.level, Lift::flipped, automorphism.flips.data(), threads);
    u64* sums = arena.take(2 * rows * n);
    switch_digits(sums, sums + rows * n, digits, a.level, key, threads);
    auto out = blank(2, a.level);
    const auto moduli = extended_rows(ring_, a.level);
    for (int i = 0; i < 2; ++i) {
        u64* x = sums + z(i) * rows * n;
        ring_.divide_last(x, x, moduli, threads);
        for (int r = 0; r <= a.level; ++r) {
            const Prime& p = ring_.prime(r);
            u64* row = x + z(r) * n;
            if (i == 0) p.kernels->add(row, row, a.poly(0) + z(r) * n, n, p.modulus);
            p.kernels->permute(out->poly(i) + z(r) * n, row, automorphism.table.data(), n);
        }
    }
    return out;
}

std::vector<std::unique_ptr<Ciphertext>> Evaluator::combine(
    const SparseWeights& weights, const std::vector<CiphertextPtr>& sources, int threads) const {
    const int size = sources.front()->size, level = sources.front()->level;
    const std::size_t n = ring_.n(), targets = weights.starts.size() - 1;
    std::vector<std::unique_ptr<Ciphertext>> results;
    for (std::size_t t = 0; t < targets; ++t) results.push_back(blank(size, level));
    const std::size_t terms = weights.values.size();
    std::vector<std::vector<u64>> reduced(z(level + 1), std::vector<u64>(terms));
    for (int r = 0; r <= level; ++r) {
        const auto q = static_cast<std::int64_t>(ring_.moduli()[z(r)]);
        for (std::size_t i = 0; i < terms; ++i) {
            const std::int64_t rest = weights.values[i] % q;
            reduced[z(r)][i] = static_cast<u64>(rest < 0 ? rest + q : rest);
        }
    }
    // One block of coefficients of all sources at a time is copied together, so that the sums
    // read it from the cache.
    const std::size_t planes = z(size) * z(level + 1), blocks = n / kCombined;
    parallel_for(threads, planes * blocks, [&](std::size_t task) {
        Arena arena;
        const std::size_t plane = task / blocks, r = plane % z(level + 1);
        const std::size_t offset = plane * n + task % blocks * kCombined;
        const Prime& p = ring_.prime(static_cast<int>(r));
        u64* block = arena.take(sources.size() * kCombined);
        for (std::size_t s = 0; s < sources.size(); ++s) {
            std::copy_n(sources[s]->words.get() + offset, kCombined, block + s * kCombined);
        }
        for (std::size_t t = 0; t < targets; ++t) {
            const auto first = static_cast<std::size_t>(weights.starts[t]);
            const auto last = static_cast<std::size_t>(weights.starts[t + 1]);
            p.kernels->combine(results[t]->words.get() + offset, block,
                               weights.columns.data() + first, reduced[r].data() + first,
                               last - first, p.modulus);
        }
    });
    return results;
}

std::unique_ptr<Ciphertext> Evaluator::add_integers(const Ciphertext& a,
                                                    const std::int64_t* coefficients) const {
    Arena arena;
    auto out = drop(a, a.level);
    const std::size_t n = ring_.n();
    u64* row = arena.take(n);
    for (int r = 0; r <= a.level; ++r) {
        const Prime& p = ring_.prime(r);
        residues(row, coefficients, n, p.modulus.q);
        ring_.forward(row, p);
        u64* x = out->poly(0) + z(r) * n;
        p.kernels->add(x, x, row, n, p.modulus);
    }
    return out;
}

std::unique_ptr<Ciphertext> Evaluator::encrypt_zero(int level, const u64* public_key,
                                                    const signed char* small) const {
    // One prime D higher (above q_L lies P), and divided by it. With r the remainder of
    // u·key + e modulo D, the quotient is (u·key − (r − e)) / D: u·key is at hand in NTT form
    // and r as coefficients, so that e is never transformed.
    Arena arena;
    const std::size_t n = ring_.n(), rows = z(level + 2), last = (rows - 1) * n;
    const Prime& divisor = ring_.prime(level + 1);
    u64* mask = arena.take(rows * n);
    for (std::size_t r = 0; r < rows; ++r) {
        const Prime& p = ring_.prime(static_cast<int>(r));
        residues(mask + r * n, small, n, p.modulus.q);
        ring_.forward(mask + r * n, p);
    }
    auto out = blank(2, level);
    u64* remainder = arena.take(n);
    u64* lifted = arena.take(n);
    u64* row = arena.take(n);
    for (int i = 0; i < 2; ++i) {
        const u64* key = public_key + z(i) * rows * n;
        const signed char* error = small + z(i + 1) * n;
        divisor.kernels->multiply(remainder, mask + last, key + last, n, divisor.modulus);
        ring_.inverse(remainder, divisor);
        residues(row, error, n, divisor.modulus.q);
        divisor.kernels->add(remainder, remainder, row, n, divisor.modulus);
        for (int r = 0; r <= level; ++r) {
            const Prime& p = ring_.prime(r);
            ring_.lift(lifted, remainder, divisor.modulus.q, Lift::centred, nullptr, p);
            residues(row, error, n, p.modulus.q);
            subtract(lifted, row, n, p.modulus.q);
            ring_.forward(lifted, p);
            p.kernels->multiply(row, mask + z(r) * n, key + z(r) * n, n, p.modulus);
            p.kernels->subtract_scale(out->poly(i) + z(r) * n, row, lifted,
                                      p.factor(ring_.inverse_of(level + 1, r)), n, p.modulus);
        }
    }
    return out;
}

}  // namespace he
