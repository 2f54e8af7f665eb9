#include <algorithm>
#include <set>

#include "evaluator.hpp"
#include "parallel.hpp"
#include "rows.hpp"

namespace he {

int Transform::sources() const {
    int most = -1;
    for (const auto& target : targets) {
        for (const auto& group : target) {
            for (const auto& p : group.products) most = std::max(most, p.source);
        }
    }
    return most + 1;
}

bool Transform::hoists() const {
    for (const auto& target : targets) {
        for (const auto& group : target) {
            for (const auto& p : group.products) {
                if (p.element != 1) return true;
            }
        }
    }
    return false;
}

// A running total: two polynomials of `rows` rows, extended or not.
struct Evaluator::Sum {
    bool filled = false, extended = false;
    u64 *c0 = nullptr, *c1 = nullptr;
};

void Evaluator::rotate_sum(Sum& sum, int level, const SwitchKey& key, int threads) const {
    Arena arena;
    const std::size_t n = ring_.n(), rows = z(level + 2);
    u64* plain = sum.c1;
    if (sum.extended) {
        plain = arena.take(rows * n);
        ring_.divide_last(plain, sum.c1, extended_rows(ring_, level), threads);
    } else {
        u64* raised = arena.take(rows * n);
        raise(raised, sum.c0, level);
        std::copy_n(raised, rows * n, sum.c0);
    }
    u64* digits = arena.take(z(level + 1) * rows * n);
    decompose(digits, plain, level, Lift::centred, nullptr, threads);
    u64* k0 = arena.take(rows * n);
    u64* k1 = arena.take(rows * n);
    switch_digits(k0, k1, digits, level, key, threads);
    const auto& table = ring_.automorphism(key.element).table;
    parallel_for(threads, rows, [&](std::size_t r) {
        const Prime& p = ring_.row(level, static_cast<int>(r));
        const std::size_t at = r * n;
        p.kernels->add(k0 + at, k0 + at, sum.c0 + at, n, p.modulus);
        p.kernels->permute(sum.c0 + at, k0 + at, table.data(), n);
        p.kernels->permute(sum.c1 + at, k1 + at, table.data(), n);
    });
    sum.extended = true;
}

namespace {

// Which automorphisms of which sources a transform reads, with a number for each.
struct Rotations {
    std::map<std::pair<int, std::uint32_t>, std::size_t> number;
    std::map<int, std::set<std::uint32_t>> of_source;

    explicit Rotations(const Transform& t) {
        for (const auto& target : t.targets) {
            for (const auto& group : target) {
                for (const auto& p : group.products) {
                    number.insert({{p.source, p.element}, number.size()});
                    of_source[p.source].insert(p.element);
                }
            }
        }
    }
    bool moves(int source) const {
        const auto& elements = of_source.at(source);
        return elements.size() > 1 || *elements.begin() != 1;
    }
};

}  // namespace

// One row of everything at a time, so that rotations are multiplied while they are in cache.
void Evaluator::sum_row(const Transform& t, const std::vector<CiphertextPtr>& sources,
                        const SwitchKeys& keys, const std::map<int, const u64*>& digits,
                        std::size_t r, const std::vector<u64*>& sums) const {
    Arena arena;
    const int level = t.level;
    const std::size_t n = ring_.n(), rows = z(level + 2), poly = rows * n;
    const bool hoists = t.hoists();
    const Prime& p = ring_.row(level, static_cast<int>(r));
    const Rotations rotations(t);
    std::vector<std::pair<const u64*, const u64*>> values(rotations.number.size());
    u64* switched = arena.take(2 * n);
    const Factor special = p.factor(ring_.moduli().back() % p.modulus.q);
    for (const auto& [source, elements] : rotations.of_source) {
        const Ciphertext& c = *sources[z(source)];
        const u64 *c0 = c.poly(0) + r * n, *c1 = c.poly(1) + r * n;
        if (hoists) {
            u64* raised = arena.take(2 * n);
            if (r == rows - 1) {
                std::fill_n(raised, 2 * n, u64{0});
            } else {
                p.kernels->scale(raised, c0, special, n, p.modulus);
                p.kernels->scale(raised + n, c1, special, n, p.modulus);
            }
            c0 = raised;
            c1 = raised + n;
        }
        for (const std::uint32_t element : elements) {
            auto& value = values[rotations.number.at({source, element})];
            if (element == 1) {
                value = {c0, c1};
                continue;
            }
            const SwitchKey& key = *keys.at(element);
            switch_row(switched, switched + n, digits.at(source), level, key, r);
            p.kernels->add(switched, switched, c0, n, p.modulus);
            u64* out = arena.take(2 * n);
            const auto& table = ring_.automorphism(element).table;
            p.kernels->permute(out, switched, table.data(), n);
            p.kernels->permute(out + n, switched + n, table.data(), n);
            value = {out, out + n};
        }
    }
    std::size_t at = 0;
    for (const auto& target : t.targets) {
        for (const auto& group : target) {
            u64* sum = sums[at++];
            const std::size_t terms = group.products.size();
            if (terms == 0) continue;
            std::vector<const u64*> a0(terms), a1(terms);
            std::vector<Weights> plain(terms);
            for (std::size_t i = 0; i < terms; ++i) {
                const Product& product = group.products[i];
                const auto& value = values[rotations.number.at({product.source, product.element})];
                a0[i] = value.first;
                a1[i] = value.second;
                plain[i] = product.plain->row(static_cast<int>(r));
            }
            p.kernels->weighted(sum + r * n, sum + poly + r * n, a0.data(), a1.data(),
                                plain.data(), terms, n, p.modulus);
        }
    }
}

std::vector<std::unique_ptr<Ciphertext>> Evaluator::transform(
    const Transform& t, const std::vector<CiphertextPtr>& sources, const SwitchKeys& keys,
    int threads) const {
    Arena arena;
    const int level = t.level;
    const std::size_t n = ring_.n(), rows = z(level + 2), poly = rows * n;
    const bool hoists = t.hoists();

    std::map<int, const u64*> digits;
    const Rotations rotations(t);
    for (const auto& [source, elements] : rotations.of_source) {
        if (!rotations.moves(source)) continue;
        u64* d = arena.take(z(level + 1) * poly);
        decompose(d, sources[z(source)]->poly(1), level, Lift::centred, nullptr, threads);
        digits[source] = d;
    }
    std::vector<u64*> sums;
    for (const auto& target : t.targets) {
        for (std::size_t g = 0; g < target.size(); ++g) sums.push_back(arena.take(2 * poly));
    }
    parallel_for(threads, hoists ? rows : rows - 1, [&](std::size_t r) {
        sum_row(t, sources, keys, digits, r, sums);
    });

    std::vector<std::unique_ptr<Ciphertext>> results;
    std::size_t at = 0;
    for (const auto& target : t.targets) {
        Arena inner;
        Sum total;
        for (const auto& group : target) {
            Sum part{!group.products.empty(), hoists, sums[at], sums[at] + poly};
            ++at;
            if (!total.filled) {
                total = part;
            } else if (part.filled) {
                join(total, part, level, threads);
            }
            if (group.then != 1) rotate_sum(total, level, *keys.at(group.then), threads);
        }
        u64* kept = t.folds.empty() ? nullptr : inner.take(2 * poly);
        for (const std::uint32_t fold : t.folds) {
            const Sum before{true, total.extended, kept, kept + poly};
            std::copy_n(total.c0, poly, before.c0);
            std::copy_n(total.c1, poly, before.c1);
            rotate_sum(total, level, *keys.at(fold), threads);
            join(total, before, level, threads);
        }
        auto out = blank(2, level - 1);
        for (int i = 0; i < 2; ++i) {
            const u64* sum = i == 0 ? total.c0 : total.c1;
            if (total.extended) {
                ring_.divide_twice(out->poly(i), sum, level, threads);
            } else {
                ring_.divide_last(out->poly(i), sum, data_rows(level), threads);
            }
        }
        results.push_back(std::move(out));
    }
    return results;
}

// total += part; the total is extended wherever the part is.
void Evaluator::join(Sum& total, const Sum& part, int level, int threads) const {
    Arena arena;
    const std::size_t n = ring_.n(), rows = z(level + 2);
    const u64 *p0 = part.c0, *p1 = part.c1;
    if (total.extended && !part.extended) {
        u64* raised = arena.take(2 * rows * n);
        raise(raised, p0, level);
        raise(raised + rows * n, p1, level);
        p0 = raised;
        p1 = raised + rows * n;
    }
    parallel_for(threads, total.extended ? rows : rows - 1, [&](std::size_t r) {
        const Prime& p = ring_.row(level, static_cast<int>(r));
        const std::size_t at = r * n;
        p.kernels->add(total.c0 + at, total.c0 + at, p0 + at, n, p.modulus);
        p.kernels->add(total.c1 + at, total.c1 + at, p1 + at, n, p.modulus);
    });
}

}  // namespace he
