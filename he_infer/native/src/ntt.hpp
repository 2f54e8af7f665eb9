// The negacyclic number-theoretic transform, once for all paths: Harvey's lazy butterflies
// (2014) in the order that SEAL uses, two stages a pass, blocks that fit the first cache, and
// the last stages across the lanes of a transposed square of words.
#pragma once

#include "modulus.hpp"

namespace he {

constexpr std::size_t kBlock = 2048;  // words; 16 KiB

template <class L>
struct Ntt {
    using V = typename L::V;

    struct Constants {
        V q, two_q;
        explicit Constants(const Modulus& m)
            : q(L::broadcast(m.q)), two_q(L::broadcast(2 * m.q)) {}
    };

    static constexpr int lane_log() {
        int log = 0;
        while ((1 << log) < L::lanes) ++log;
        return log;
    }

    // (x, y) → (x + w·y, x − w·y); inputs and results below 4q
    static void butterfly(V& x, V& y, V w, V companion, const Constants& k) {
        const V u = L::reduce_once(x, k.two_q);
        const V v = L::mul_lazy(y, w, companion, k.q);
        x = L::add(u, v);
        y = L::sub(L::add(u, k.two_q), v);
    }
    // (x, y) → (x + y, w·(x − y)); inputs and results below 2q
    static void inverse_butterfly(V& x, V& y, V w, V companion, const Constants& k) {
        const V u = x, v = y;
        x = L::reduce_once(L::add(u, v), k.two_q);
        y = L::mul_lazy(L::sub(L::add(u, k.two_q), v), w, companion, k.q);
    }

    static void forward(u64* x, const Twiddles& t, const Modulus& m) {
        const Constants k(m);
        const int vector_stages = t.log_n - lane_log();
        int stage = 0;
        if (vector_stages % 2 != 0) single(x, 0, stage++, 0, t, k);
        while (stage < vector_stages && (t.n >> stage) > kBlock) {
            pair(x, stage, 0, std::size_t{1} << stage, t, k);
            stage += 2;
        }
        const std::size_t blocks = std::size_t{1} << stage;
        const std::size_t size = t.n >> stage;
        for (std::size_t b = 0; b < blocks; ++b) {
            for (int s = stage; s < vector_stages; s += 2) {
                const std::size_t inner = std::size_t{1} << (s - stage);
                pair(x, s, b * inner, (b + 1) * inner, t, k);
            }
            tail(x, b * size, (b + 1) * size, t, k);
        }
    }

    static void inverse(u64* x, const Twiddles& t, const Modulus& m) {
        const Constants k(m);
        const int vector_stages = t.log_n - lane_log();
        const bool odd = vector_stages % 2 != 0;
        int stage = vector_stages;
        // Blocks small enough for the cache, but never the very first stage, which also scales.
        int top = odd ? 1 : 2;
        while ((t.n >> top) > kBlock && top + 2 <= vector_stages) top += 2;
        const std::size_t blocks = std::size_t{1} << top;
        const std::size_t size = t.n >> top;
        for (std::size_t b = 0; b < blocks; ++b) {
            inverse_tail(x, b * size, (b + 1) * size, t, k);
            for (int s = stage - 2; s >= top; s -= 2) {
                const std::size_t inner = std::size_t{1} << (s - top);
                inverse_pair(x, s, b * inner, (b + 1) * inner, t, k);
            }
        }
        for (stage = top - 2; stage >= 1; stage -= 2) {
            inverse_pair(x, stage, 0, std::size_t{1} << stage, t, k);
        }
        if (odd) {
            inverse_last(x, t, k);
        } else {
            inverse_last_pair(x, t, k);
        }
    }

   private:
    struct W {
        V value, companion;
    };
    static W root(const u64* values, const u64* companions, std::size_t i) {
        return {L::broadcast(values[i]), L::broadcast(companions[i])};
    }

    static void single(u64* x, std::size_t first, int stage, int, const Twiddles& t,
                       const Constants& k) {
        const std::size_t half = t.n >> (stage + 1), m = std::size_t{1} << stage;
        for (std::size_t i = first; i < m; ++i) {
            const W w = root(t.root, t.root_companion, m + i);
            u64* p = x + 2 * half * i;
            for (std::size_t j = 0; j < half; j += L::lanes) {
                V a = L::load(p + j), b = L::load(p + half + j);
                butterfly(a, b, w.value, w.companion, k);
                L::store(p + j, a);
                L::store(p + half + j, b);
            }
        }
    }

    // Stages `stage` and `stage + 1` of the blocks first … last − 1.
    static void pair(u64* x, int stage, std::size_t first, std::size_t last, const Twiddles& t,
                     const Constants& k) {
        const std::size_t quarter = t.n >> (stage + 2), m = std::size_t{1} << stage;
        for (std::size_t i = first; i < last; ++i) {
            const W w = root(t.root, t.root_companion, m + i);
            const W w0 = root(t.root, t.root_companion, 2 * (m + i));
            const W w1 = root(t.root, t.root_companion, 2 * (m + i) + 1);
            u64* p = x + 4 * quarter * i;
            for (std::size_t j = 0; j < quarter; j += L::lanes) {
                V a = L::load(p + j), b = L::load(p + quarter + j);
                V c = L::load(p + 2 * quarter + j), d = L::load(p + 3 * quarter + j);
                butterfly(a, c, w.value, w.companion, k);
                butterfly(b, d, w.value, w.companion, k);
                butterfly(a, b, w0.value, w0.companion, k);
                butterfly(c, d, w1.value, w1.companion, k);
                L::store(p + j, a);
                L::store(p + quarter + j, b);
                L::store(p + 2 * quarter + j, c);
                L::store(p + 3 * quarter + j, d);
            }
        }
    }

    static void inverse_pair(u64* x, int stage, std::size_t first, std::size_t last,
                             const Twiddles& t, const Constants& k) {
        const std::size_t quarter = t.n >> (stage + 2), m = std::size_t{1} << stage;
        for (std::size_t i = first; i < last; ++i) {
            const W w = root(t.inverse, t.inverse_companion, m + i);
            const W w0 = root(t.inverse, t.inverse_companion, 2 * (m + i));
            const W w1 = root(t.inverse, t.inverse_companion, 2 * (m + i) + 1);
            u64* p = x + 4 * quarter * i;
            for (std::size_t j = 0; j < quarter; j += L::lanes) {
                V a = L::load(p + j), b = L::load(p + quarter + j);
                V c = L::load(p + 2 * quarter + j), d = L::load(p + 3 * quarter + j);
                inverse_butterfly(a, b, w0.value, w0.companion, k);
                inverse_butterfly(c, d, w1.value, w1.companion, k);
                inverse_butterfly(a, c, w.value, w.companion, k);
                inverse_butterfly(b, d, w.value, w.companion, k);
                L::store(p + j, a);
                L::store(p + quarter + j, b);
                L::store(p + 2 * quarter + j, c);
                L::store(p + 3 * quarter + j, d);
            }
        }
    }

    // The outermost stage, with the division by n; full reduction.
    static void finish(V& a, V& b, const Twiddles& t, const Constants& k) {
        const V u = a, v = b;
        a = L::mul_lazy(L::add(u, v), L::broadcast(t.n_inverse.value),
                        L::broadcast(t.n_inverse.companion), k.q);
        b = L::mul_lazy(L::sub(L::add(u, k.two_q), v), L::broadcast(t.last_n_inverse.value),
                        L::broadcast(t.last_n_inverse.companion), k.q);
        a = L::reduce_once(a, k.q);
        b = L::reduce_once(b, k.q);
    }

    static void inverse_last(u64* x, const Twiddles& t, const Constants& k) {
        const std::size_t half = t.n / 2;
        for (std::size_t j = 0; j < half; j += L::lanes) {
            V a = L::load(x + j), b = L::load(x + half + j);
            finish(a, b, t, k);
            L::store(x + j, a);
            L::store(x + half + j, b);
        }
    }

    static void inverse_last_pair(u64* x, const Twiddles& t, const Constants& k) {
        const std::size_t quarter = t.n / 4;
        const W w0 = root(t.inverse, t.inverse_companion, 2);
        const W w1 = root(t.inverse, t.inverse_companion, 3);
        for (std::size_t j = 0; j < quarter; j += L::lanes) {
            V a = L::load(x + j), b = L::load(x + quarter + j);
            V c = L::load(x + 2 * quarter + j), d = L::load(x + 3 * quarter + j);
            inverse_butterfly(a, b, w0.value, w0.companion, k);
            inverse_butterfly(c, d, w1.value, w1.companion, k);
            finish(a, c, t, k);
            finish(b, d, t, k);
            L::store(x + j, a);
            L::store(x + quarter + j, b);
            L::store(x + 2 * quarter + j, c);
            L::store(x + 3 * quarter + j, d);
        }
    }

    // The last log2(lanes) stages: `lanes` neighbouring blocks of `lanes` words are transposed,
    // so that each lane runs through one block. One table row per factor, lane by lane.
    static void tail(u64* x, std::size_t begin, std::size_t end, const Twiddles& t,
                     const Constants& k) {
        constexpr int lanes = L::lanes;
        for (std::size_t c = begin; c < end; c += lanes * lanes) {
            V r[lanes];
            for (int i = 0; i < lanes; ++i) r[i] = L::load(x + c + i * lanes);
            L::transpose(r);
            std::size_t row = c / (lanes * lanes) * (lanes - 1) * lanes;
            for (int half = lanes / 2; half >= 1; half /= 2) {
                for (int start = 0; start < lanes; start += 2 * half) {
                    const V w = L::load(t.tail + row), companion = L::load(t.tail_companion + row);
                    row += lanes;
                    for (int i = start; i < start + half; ++i) {
                        butterfly(r[i], r[i + half], w, companion, k);
                    }
                }
            }
            L::transpose(r);
            for (int i = 0; i < lanes; ++i) {
                const V v = L::reduce_once(L::reduce_once(r[i], k.two_q), k.q);
                L::store(x + c + i * lanes, v);
            }
        }
    }

    static void inverse_tail(u64* x, std::size_t begin, std::size_t end, const Twiddles& t,
                             const Constants& k) {
        constexpr int lanes = L::lanes;
        if (lanes == 1) return;
        for (std::size_t c = begin; c < end; c += lanes * lanes) {
            V r[lanes];
            for (int i = 0; i < lanes; ++i) r[i] = L::load(x + c + i * lanes);
            L::transpose(r);
            const std::size_t base = c / (lanes * lanes) * (lanes - 1) * lanes;
            for (int half = 1; half < lanes; half *= 2) {
                // Rows of this stage lie behind those of the stages with larger blocks.
                std::size_t row = base + static_cast<std::size_t>(lanes / (2 * half) - 1) * lanes;
                for (int start = 0; start < lanes; start += 2 * half) {
                    const V w = L::load(t.inverse_tail + row);
                    const V companion = L::load(t.inverse_tail_companion + row);
                    row += lanes;
                    for (int i = start; i < start + half; ++i) {
                        inverse_butterfly(r[i], r[i + half], w, companion, k);
                    }
                }
            }
            L::transpose(r);
            for (int i = 0; i < lanes; ++i) L::store(x + c + i * lanes, r[i]);
        }
    }
};

}  // namespace he
