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

std::vector<std::unique_ptr<Ciphertext>> Evaluator::transform(
    const Transform& t, const std::vector<CiphertextPtr>& sources, const SwitchKeys& keys,
    int threads) const {
    Arena arena;
    const int level = t.level;
    const std::size_t n = ring_.n(), rows = z(level + 2), poly = rows * n;
    const bool hoists = t.hoists();

    // Every rotation of every source, its digits taken once.
    std::map<std::pair<int, std::uint32_t>, std::pair<const u64*, const u64*>> rotated;
    std::map<int, std::set<std::uint32_t>> wanted;
    for (const auto& target : t.targets) {
        for (const auto& group : target) {
            for (const auto& p : group.products) wanted[p.source].insert(p.element);
        }
    }
    for (const auto& [source, elements] : wanted) {
        const Ciphertext& c = *sources[z(source)];
        if (!hoists) {
            rotated[{source, 1}] = {c.poly(0), c.poly(1)};
            continue;
        }
        Arena inner;
        u64* raised = arena.take(2 * poly);
        raise(raised, c.poly(0), level);
        raise(raised + poly, c.poly(1), level);
        rotated[{source, 1}] = {raised, raised + poly};
        if (elements.size() == 1 && *elements.begin() == 1) continue;
        u64* digits = inner.take(z(level + 1) * poly);
        decompose(digits, c.poly(1), level, Lift::centred, nullptr, threads);
        u64* k = inner.take(2 * poly);
        for (const std::uint32_t element : elements) {
            if (element == 1) continue;
            switch_digits(k, k + poly, digits, level, *keys.at(element), threads);
            u64* out = arena.take(2 * poly);
            const auto& table = ring_.automorphism(element).table;
            parallel_for(threads, rows, [&](std::size_t r) {
                const Prime& p = ring_.row(level, static_cast<int>(r));
                const std::size_t at = r * n;
                p.kernels->add(k + at, k + at, raised + at, n, p.modulus);
                p.kernels->permute(out + at, k + at, table.data(), n);
                p.kernels->permute(out + poly + at, k + poly + at, table.data(), n);
            });
            rotated[{source, element}] = {out, out + poly};
        }
    }

    std::vector<std::unique_ptr<Ciphertext>> results;
    for (const auto& target : t.targets) {
        Arena inner;
        Sum total;
        total.c0 = inner.take(poly);
        total.c1 = inner.take(poly);
        u64* products = inner.take(2 * poly);
        u64* raised = inner.take(2 * poly);
        for (const auto& group : target) {
            if (!group.products.empty()) {
                const std::size_t terms = group.products.size();
                const std::size_t count = hoists ? rows : rows - 1;
                u64* p0 = total.filled ? products : total.c0;
                u64* p1 = total.filled ? products + poly : total.c1;
                parallel_for(threads, count, [&](std::size_t r) {
                    std::vector<const u64*> a0(terms), a1(terms), plain(terms);
                    std::vector<int> runs(terms);
                    for (std::size_t i = 0; i < terms; ++i) {
                        const Product& product = group.products[i];
                        const auto& source = rotated.at({product.source, product.element});
                        a0[i] = source.first + r * n;
                        a1[i] = source.second + r * n;
                        plain[i] = product.plain->row(static_cast<int>(r));
                        runs[i] = product.plain->run;
                    }
                    const Prime& p = ring_.row(level, static_cast<int>(r));
                    p.kernels->weighted(p0 + r * n, p1 + r * n, a0.data(), a1.data(),
                                        plain.data(), runs.data(), terms, n, p.modulus);
                });
                if (!total.filled) {
                    total.filled = true;
                    total.extended = hoists;
                } else {
                    if (total.extended && !hoists) {
                        raise(raised, p0, level);
                        raise(raised + poly, p1, level);
                        p0 = raised;
                        p1 = raised + poly;
                    }
                    const std::size_t both = total.extended ? rows : rows - 1;
                    for (std::size_t r = 0; r < both; ++r) {
                        const Prime& p = ring_.row(level, static_cast<int>(r));
                        p.kernels->add(total.c0 + r * n, total.c0 + r * n, p0 + r * n, n,
                                       p.modulus);
                        p.kernels->add(total.c1 + r * n, total.c1 + r * n, p1 + r * n, n,
                                       p.modulus);
                    }
                }
            }
            if (group.then != 1) rotate_sum(total, level, *keys.at(group.then), threads);
        }
        for (const std::uint32_t fold : t.folds) {
            u64* kept = inner.take(2 * poly);
            if (total.extended) {
                std::copy_n(total.c0, poly, kept);
                std::copy_n(total.c1, poly, kept + poly);
            } else {
                raise(kept, total.c0, level);
                raise(kept + poly, total.c1, level);
            }
            rotate_sum(total, level, *keys.at(fold), threads);
            for (std::size_t r = 0; r < rows; ++r) {
                const Prime& p = ring_.row(level, static_cast<int>(r));
                const std::size_t at = r * n;
                p.kernels->add(total.c0 + at, total.c0 + at, kept + at, n, p.modulus);
                p.kernels->add(total.c1 + at, total.c1 + at, kept + poly + at, n, p.modulus);
            }
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

}  // namespace he
