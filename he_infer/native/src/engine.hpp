// Ring and Evaluator as Python sees them: every argument is checked before any arithmetic.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "blake2xb.hpp"
#include "evaluator.hpp"
#include "rows.hpp"

namespace nb = nanobind;

namespace he {

template <class T, std::size_t D>
using Array = nb::ndarray<const T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
using Shared = std::shared_ptr<Ciphertext>;
using Key = std::shared_ptr<SwitchKey>;
using Keys = std::map<std::uint32_t, Key>;
using Plain = std::shared_ptr<Plaintext>;

inline void require(bool holds, const std::string& otherwise) {
    if (!holds) throw std::invalid_argument(otherwise);
}

// Ring and Evaluator together, as Python sees them.
class Engine {
   public:
    Engine(std::size_t n, std::vector<u64> moduli, const std::string& path)
        : ring_(n, std::move(moduli), path), evaluator_(ring_) {}

    const Ring& ring() const { return ring_; }

    void check_residues(const u64* words, const std::vector<int>& rows, std::size_t polys) const {
        for (std::size_t i = 0; i < polys; ++i) {
            for (const int row : rows) {
                const u64 q = ring_.moduli()[static_cast<std::size_t>(row)];
                u64 largest = 0;
                for (std::size_t k = 0; k < ring_.n(); ++k) largest = std::max(largest, words[k]);
                require(largest < q, "a residue is not below its prime");
                words += ring_.n();
            }
        }
    }
    int level_of(std::size_t rows) const {
        require(rows >= 1 && rows <= static_cast<std::size_t>(ring_.top()) + 1,
                "no level has " + std::to_string(rows) + " rows");
        return static_cast<int>(rows) - 1;
    }
    void check_level(int level) const {
        require(level >= 0 && level <= ring_.top(), "there is no level " + std::to_string(level));
    }
    void check_own(const Ciphertext& c) const {
        require(c.n == ring_.n() && c.level <= ring_.top(), "a ciphertext of another ring");
    }
    void check_pair(const Ciphertext& a, const Ciphertext& b) const {
        check_own(a);
        check_own(b);
        require(a.level == b.level, "ciphertexts at different levels");
    }
    void check_plain(const Ciphertext& a, const Plaintext& p) const {
        check_own(a);
        require(p.n == ring_.n(), "a plaintext of another ring");
        require(p.level == a.level, "a plaintext at another level");
    }
    void check_key(const SwitchKey& key, std::uint32_t element, int level) const {
        require(key.n == ring_.n(), "a key of another ring");
        require(key.element == element, "a key for another automorphism");
        require(key.level >= level, "the key was cut below level " + std::to_string(level));
    }

    Shared ciphertext(Array<u64, 3> residues) const {
        const std::size_t size = residues.shape(0);
        require(size == 2 || size == 3, "a ciphertext has 2 or 3 polynomials");
        require(residues.shape(2) == ring_.n(), "polynomials of another length");
        const int level = level_of(residues.shape(1));
        check_residues(residues.data(), data_rows(level), size);
        auto out = evaluator_.blank(static_cast<int>(size), level);
        std::copy_n(residues.data(), out->count(), out->words.get());
        return Shared(std::move(out));
    }
    Shared seeded(Array<u64, 2> c0, nb::bytes seed) const {
        require(c0.shape(1) == ring_.n(), "polynomials of another length");
        require(seed.size() == kSeedBytes, "a seed has 64 bytes");
        const int level = level_of(c0.shape(0));
        const auto* bytes = static_cast<const unsigned char*>(seed.data());
        nb::gil_scoped_release release;
        check_residues(c0.data(), data_rows(level), 1);
        auto out = evaluator_.blank(2, level);
        std::copy_n(c0.data(), out->count() / 2, out->words.get());
        const std::vector<u64> moduli(ring_.moduli().begin(), ring_.moduli().begin() + level + 1);
        expand_seed(bytes, moduli, ring_.n(), out->poly(1), *ring_.prime(0).kernels);
        return Shared(std::move(out));
    }
    // The uniform polynomial of a key: rows modulo every prime of the ring.
    nb::object expand(nb::bytes seed) const {
        require(seed.size() == kSeedBytes, "a seed has 64 bytes");
        auto* words = make_words(ring_.moduli().size() * ring_.n()).release();
        nb::capsule owner(words, [](void* p) noexcept { std::free(p); });
        expand_seed(static_cast<const unsigned char*>(seed.data()), ring_.moduli(), ring_.n(),
                    words, *ring_.prime(0).kernels);
        const std::size_t shape[2] = {ring_.moduli().size(), ring_.n()};
        return nb::cast(nb::ndarray<nb::numpy, u64>(words, 2, shape, owner));
    }
    Key switch_key(std::uint32_t element, Array<u64, 3> b, std::vector<nb::bytes> seeds) const {
        const std::size_t digits = b.shape(0), rows = b.shape(1), n = ring_.n();
        require(b.shape(2) == n, "polynomials of another length");
        require(rows == digits + 1, "a key has one row more than digits");
        const int level = level_of(digits);
        require(seeds.size() == digits, "one seed per digit is needed");
        require(element % 2 == 1 && element < 2 * n, "no automorphism has this element");
        std::vector<const unsigned char*> bytes;
        for (const auto& seed : seeds) {
            require(seed.size() == kSeedBytes, "a seed has 64 bytes");
            bytes.push_back(static_cast<const unsigned char*>(seed.data()));
        }
        nb::gil_scoped_release release;
        const auto chosen = extended_rows(ring_, level);
        check_residues(b.data(), chosen, digits);
        auto key = std::make_shared<SwitchKey>();
        key->element = element;
        key->level = level;
        key->n = n;
        std::size_t size = 0;
        for (const int row : chosen) {
            key->starts.push_back(size);
            key->bits.push_back(bits_of(ring_.moduli()[static_cast<std::size_t>(row)]));
            size += n / kGroup * digits * 2 * static_cast<std::size_t>(key->bits.back());
        }
        key->bytes.resize(size + kPackedPadding);
        const auto& table = ring_.automorphism(element).table;
        std::vector<u64> uniform(ring_.moduli().size() * n);
        for (std::size_t i = 0; i < digits; ++i) {
            expand_seed(bytes[i], ring_.moduli(), n, uniform.data(), *ring_.prime(0).kernels);
            for (std::size_t r = 0; r < rows; ++r) {
                const u64* from_b = b.data() + (i * rows + r) * n;
                const u64* from_a = uniform.data() + static_cast<std::size_t>(chosen[r]) * n;
                for (std::size_t k = 0; k < n; ++k) {
                    const std::size_t to = table[k];
                    const int bits = key->bits[r];
                    put_packed_word(key->group(i, 0, r, to), bits, to % kGroup, from_b[k]);
                    put_packed_word(key->group(i, 1, r, to), bits, to % kGroup, from_a[k]);
                }
            }
        }
        return key;
    }
    // `coefficients` as signed integers; values that repeat in runs are stored once.
    Plain plaintext(Array<std::int64_t, 1> coefficients, int level, bool for_hoisting) const {
        const std::size_t n = ring_.n();
        require(coefficients.shape(0) == n, "a polynomial of another length");
        check_level(level);
        nb::gil_scoped_release release;
        auto p = std::make_shared<Plaintext>();
        p->level = level;
        p->extended = for_hoisting;
        p->n = n;
        std::size_t used = n;
        for (std::size_t i = 0; i < n; ++i) {
            if (coefficients.data()[i] != 0) used |= i;
        }
        int run = 0;
        while (((used >> run) & 1) == 0) ++run;
        p->run = run >= 3 ? run : 0;  // at least one vector of the widest path
        const auto rows = for_hoisting ? extended_rows(ring_, level) : data_rows(level);
        std::size_t size = 0;
        for (const int row : rows) {
            p->starts.push_back(size);
            const auto bits = static_cast<std::size_t>(bits_of(ring_.prime(row).modulus.q));
            size += p->run != 0 ? (n >> p->run) * sizeof(u64) : n / kGroup * bits;
        }
        p->bytes.resize(size + kPackedPadding);
        Words full = make_words(n);
        for (std::size_t r = 0; r < rows.size(); ++r) {
            const Prime& prime = ring_.prime(rows[r]);
            const auto q = static_cast<std::int64_t>(prime.modulus.q);
            for (std::size_t i = 0; i < n; ++i) {
                const std::int64_t rest = coefficients.data()[i] % q;
                full[i] = static_cast<u64>(rest < 0 ? rest + q : rest);
            }
            ring_.forward(full.get(), prime);
            unsigned char* out = p->bytes.data() + p->starts[r];
            const int bits = bits_of(prime.modulus.q);
            for (std::size_t i = 0; i < n >> p->run; ++i) {
                if (p->run != 0) {
                    std::memcpy(out + i * sizeof(u64), &full[i << p->run], sizeof(u64));
                } else {
                    put_packed_word(out + i / kGroup * static_cast<std::size_t>(bits), bits,
                                    i % kGroup, full[i]);
                }
            }
        }
        return p;
    }

    Shared add(const Ciphertext& a, const Ciphertext& b) const {
        check_pair(a, b);
        return evaluator_.add(a, b);
    }
    Shared add_plain(const Ciphertext& a, const Plaintext& p) const {
        check_plain(a, p);
        return evaluator_.add_plain(a, p);
    }
    Shared add_integers(const Ciphertext& a, Array<std::int64_t, 1> coefficients) const {
        check_own(a);
        require(coefficients.shape(0) == ring_.n(), "a polynomial of another length");
        nb::gil_scoped_release release;
        std::int64_t low = 0, high = 0;
        for (std::size_t i = 0; i < ring_.n(); ++i) {
            low = std::min(low, coefficients.data()[i]);
            high = std::max(high, coefficients.data()[i]);
        }
        for (const int row : data_rows(a.level)) {
            const auto q = static_cast<std::int64_t>(ring_.prime(row).modulus.q);
            require(-q < low && high < q, "an integer is not below a prime");
        }
        return evaluator_.add_integers(a, coefficients.data());
    }
    Shared multiply_plain(const Ciphertext& a, const Plaintext& p) const {
        check_plain(a, p);
        return evaluator_.multiply_plain(a, p);
    }
    Shared multiply(const Ciphertext& a, const Ciphertext& b) const {
        check_pair(a, b);
        require(a.size == 2 && b.size == 2, "relinearise before multiplying again");
        return evaluator_.multiply(a, b);
    }
    Shared rescale(const Ciphertext& a, int threads) const {
        check_own(a);
        require(a.level > 0, "cannot rescale at level 0");
        return evaluator_.rescale(a, threads);
    }
    Shared drop(const Ciphertext& a, int level) const {
        check_own(a);
        require(level >= 0 && level <= a.level, "cannot drop to a higher level");
        return evaluator_.drop(a, level);
    }
    Shared relinearize(const Ciphertext& a, const SwitchKey& key, int threads) const {
        check_own(a);
        require(a.size == 3, "only a product of two ciphertexts can be relinearised");
        check_key(key, 1, a.level);
        return evaluator_.relinearize(a, key, threads);
    }
    Shared rotate(const Ciphertext& a, const SwitchKey& key, int threads) const {
        check_own(a);
        require(a.size == 2, "relinearise before rotating");
        require(key.element != 1, "a relinearisation key cannot rotate");
        check_key(key, key.element, a.level);
        return evaluator_.rotate(a, key, threads);
    }
    std::vector<Shared> transform(const Transform& t, const std::vector<Shared>& sources,
                                  const Keys& keys, int threads) const {
        require(static_cast<int>(sources.size()) >= t.sources(), "too few sources");
        std::vector<CiphertextPtr> given;
        for (const auto& source : sources) {
            check_own(*source);
            require(source->level == t.level, "a source at another level");
            require(source->size == 2, "relinearise before a transform");
            given.push_back(source);
        }
        SwitchKeys available;
        const auto need = [&](std::uint32_t element) {
            if (element == 1) return;
            const auto found = keys.find(element);
            require(found != keys.end(), "no Galois key for element " + std::to_string(element));
            check_key(*found->second, element, t.level);
            available[element] = found->second;
        };
        for (const auto& target : t.targets) {
            for (const auto& group : target) {
                need(group.then);
                for (const auto& p : group.products) need(p.element);
            }
        }
        for (const std::uint32_t fold : t.folds) need(fold);
        nb::gil_scoped_release release;
        auto results = evaluator_.transform(t, given, available, threads);
        return {std::make_move_iterator(results.begin()), std::make_move_iterator(results.end())};
    }
    std::vector<Shared> combine(Array<std::int64_t, 1> starts, Array<std::int32_t, 1> columns,
                                Array<std::int64_t, 1> values, const std::vector<Shared>& sources,
                                int threads) const {
        require(!sources.empty() && starts.shape(0) >= 2, "nothing to combine");
        require(columns.shape(0) == values.shape(0), "as many columns as values are needed");
        SparseWeights w;
        w.starts.assign(starts.data(), starts.data() + starts.shape(0));
        w.columns.assign(columns.data(), columns.data() + columns.shape(0));
        w.values.assign(values.data(), values.data() + values.shape(0));
        require(w.starts.front() == 0 &&
                    w.starts.back() == static_cast<std::int64_t>(w.values.size()) &&
                    std::is_sorted(w.starts.begin(), w.starts.end()),
                "row starts must ascend from 0 to the number of values");
        for (const std::int32_t column : w.columns) {
            require(column >= 0 && static_cast<std::size_t>(column) < sources.size(),
                    "a column beyond the sources");
        }
        std::vector<CiphertextPtr> given;
        for (const auto& source : sources) {
            check_pair(*source, *sources.front());
            require(source->size == sources.front()->size, "sources of different sizes");
            given.push_back(source);
        }
        nb::gil_scoped_release release;
        auto results = evaluator_.combine(w, given, threads);
        return {std::make_move_iterator(results.begin()), std::make_move_iterator(results.end())};
    }
    Shared encrypt_zero(int level, Array<u64, 3> public_key, Array<signed char, 2> small) const {
        check_level(level);
        const std::size_t rows = static_cast<std::size_t>(level) + 2;
        require(public_key.shape(0) == 2 && public_key.shape(1) == rows &&
                    public_key.shape(2) == ring_.n(),
                "a public key cut to another level");
        check_residues(public_key.data(), data_rows(level + 1), 2);
        require(small.shape(0) == 3 && small.shape(1) == ring_.n(), "three small polynomials");
        nb::gil_scoped_release release;
        return evaluator_.encrypt_zero(level, public_key.data(), small.data());
    }
    // For tests and benchmarks: rows (count, n) modulo prime `index`, transformed in place.
    void transform_rows(nb::ndarray<u64, nb::ndim<2>, nb::c_contig, nb::device::cpu> rows,
                        int index, bool forward) const {
        require(index >= 0 && index <= ring_.special(), "no such prime");
        require(rows.shape(1) == ring_.n(), "polynomials of another length");
        for (std::size_t i = 0; i < rows.shape(0); ++i) {
            check_residues(rows.data() + i * ring_.n(), {index}, 1);
        }
        nb::gil_scoped_release release;
        for (std::size_t i = 0; i < rows.shape(0); ++i) {
            u64* x = rows.data() + i * ring_.n();
            forward ? ring_.forward(x, ring_.prime(index)) : ring_.inverse(x, ring_.prime(index));
        }
    }

   private:
    Ring ring_;
    Evaluator evaluator_;
};

}  // namespace he
