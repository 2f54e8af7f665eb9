// Fills the table of Kernels for one kind of lanes.
#pragma once

#include "blake2_leaves.hpp"
#include "kernels.hpp"
#include "ntt.hpp"

namespace he {

template <class L>
struct KernelsOf {
    using V = typename L::V;
    using Sum = typename L::Sum;
    static constexpr std::size_t W = L::lanes;
    // Keys and weights come from far away: bytes to ask for in advance.
    static constexpr std::size_t kAhead = 24576;

    static V reciprocal(const Modulus& m) { return L::broadcast(L::companion(1, m.q)); }

    static void add(u64* out, const u64* a, const u64* b, std::size_t n, const Modulus& m) {
        const V q = L::broadcast(m.q);
        for (std::size_t i = 0; i < n; i += W) {
            L::store(out + i, L::reduce_once(L::add(L::load(a + i), L::load(b + i)), q));
        }
    }
    static void multiply(u64* out, const u64* a, const u64* b, std::size_t n, const Modulus& m) {
        const V q = L::broadcast(m.q), r = reciprocal(m);
        for (std::size_t i = 0; i < n; i += W) {
            Sum s = L::zero();
            L::mac(s, L::load(a + i), L::load(b + i), q, r);
            L::store(out + i, L::value(s, m));
        }
    }
    static void cross(u64* out, const u64* a0, const u64* b1, const u64* a1, const u64* b0,
                      std::size_t n, const Modulus& m) {
        const V q = L::broadcast(m.q), r = reciprocal(m);
        for (std::size_t i = 0; i < n; i += W) {
            Sum s = L::zero();
            L::mac(s, L::load(a0 + i), L::load(b1 + i), q, r);
            L::mac(s, L::load(a1 + i), L::load(b0 + i), q, r);
            L::store(out + i, L::value(s, m));
        }
    }
    static void scale(u64* out, const u64* a, Factor w, std::size_t n, const Modulus& m) {
        const V q = L::broadcast(m.q), f = L::broadcast(w.value), c = L::broadcast(w.companion);
        for (std::size_t i = 0; i < n; i += W) {
            L::store(out + i, L::reduce_once(L::mul_lazy(L::load(a + i), f, c, q), q));
        }
    }
    static void scale_add(u64* out, const u64* a, Factor w, std::size_t n, const Modulus& m) {
        const V q = L::broadcast(m.q), f = L::broadcast(w.value), c = L::broadcast(w.companion);
        for (std::size_t i = 0; i < n; i += W) {
            const V x = L::reduce_once(L::mul_lazy(L::load(a + i), f, c, q), q);
            L::store(out + i, L::reduce_once(L::add(L::load(out + i), x), q));
        }
    }
    static void subtract_scale(u64* out, const u64* a, const u64* b, Factor w, std::size_t n,
                               const Modulus& m) {
        const V q = L::broadcast(m.q), f = L::broadcast(w.value), c = L::broadcast(w.companion);
        for (std::size_t i = 0; i < n; i += W) {
            const V x = L::sub(L::add(L::load(a + i), q), L::load(b + i));
            L::store(out + i, L::reduce_once(L::mul_lazy(x, f, c, q), q));
        }
    }
    static void weighted(u64* out0, u64* out1, const u64* const* a0, const u64* const* a1,
                         const Weights* plain, std::size_t terms, std::size_t n,
                         const Modulus& m) {
        const V q = L::broadcast(m.q), r = reciprocal(m);
        const typename L::Unpack unpack(bits_of(m.q));
        const std::size_t most = L::terms(m.q), bits = static_cast<std::size_t>(bits_of(m.q));
        for (std::size_t i = 0; i < n; i += W) {
            Sum s0 = L::zero(), s1 = L::zero();
            std::size_t used = 0;
            for (std::size_t t = 0; t < terms; ++t) {
                if (used == most) {
                    s0 = L::start(L::value(s0, m));
                    s1 = L::start(L::value(s1, m));
                    used = 1;
                }
                // Runs are at least as long as a vector.
                V w;
                if (plain[t].run == 0) {
                    const auto* group =
                        static_cast<const unsigned char*>(plain[t].data) + i / kGroup * bits;
                    __builtin_prefetch(group + kAhead);
                    w = unpack(group, i % kGroup);
                } else {
                    w = L::broadcast(static_cast<const u64*>(plain[t].data)[i >> plain[t].run]);
                }
                L::mac(s0, L::load(a0[t] + i), w, q, r);
                L::mac(s1, L::load(a1[t] + i), w, q, r);
                ++used;
            }
            L::store(out0 + i, L::value(s0, m));
            L::store(out1 + i, L::value(s1, m));
        }
    }
    static void switch_row(u64* out0, u64* out1, const u64* const* digits,
                           const unsigned char* key, std::size_t terms, std::size_t stored,
                           std::size_t n, const Modulus& m) {
        const V q = L::broadcast(m.q), r = reciprocal(m);
        const typename L::Unpack unpack(bits_of(m.q));
        const std::size_t most = L::terms(m.q), bits = static_cast<std::size_t>(bits_of(m.q));
        for (std::size_t block = 0; block < n; block += kGroup, key += 2 * bits * stored) {
            for (std::size_t lane = 0; lane < kGroup; lane += W) {
                const std::size_t i = block + lane;
                Sum s0 = L::zero(), s1 = L::zero();
                std::size_t used = 0;
                const unsigned char* k = key;
                for (std::size_t t = 0; t < terms; ++t, k += 2 * bits) {
                    if (used == most) {
                        s0 = L::start(L::value(s0, m));
                        s1 = L::start(L::value(s1, m));
                        used = 1;
                    }
                    __builtin_prefetch(k + kAhead);
                    __builtin_prefetch(k + kAhead + 64);
                    const V d = L::load(digits[t] + i);
                    L::mac(s0, d, unpack(k, lane), q, r);
                    L::mac(s1, d, unpack(k + bits, lane), q, r);
                    ++used;
                }
                L::store(out0 + i, L::value(s0, m));
                L::store(out1 + i, L::value(s1, m));
            }
        }
    }
    static void combine(u64* out, const u64* a, const std::int32_t* columns, const u64* w,
                        std::size_t terms, const Modulus& m) {
        const V q = L::broadcast(m.q), r = reciprocal(m);
        const std::size_t most = L::terms(m.q);
        constexpr std::size_t unroll = kCombined / W < 8 ? kCombined / W : 8;
        for (std::size_t i = 0; i < kCombined; i += unroll * W) {
            Sum s[unroll];
            for (auto& one : s) one = L::zero();
            for (std::size_t first = 0; first < terms; first += most - 1) {
                const std::size_t last = terms - first < most ? terms : first + most - 1;
                for (std::size_t t = first; t < last; ++t) {
                    const V weight = L::broadcast(w[t]);
                    const u64* source = a + static_cast<std::size_t>(columns[t]) * kCombined + i;
                    for (std::size_t k = 0; k < unroll; ++k) {
                        L::mac(s[k], L::load(source + k * W), weight, q, r);
                    }
                }
                if (last < terms) {
                    for (auto& one : s) one = L::start(L::value(one, m));
                }
            }
            for (std::size_t k = 0; k < unroll; ++k) L::store(out + i + k * W, L::value(s[k], m));
        }
    }
    static void lift(u64* out, const u64* digit, u64 source, Lift how, const unsigned char* mask,
                     std::size_t n, const Modulus& m) {
        const V q = L::broadcast(m.q);
        const V f = L::broadcast(m.unit.value), c = L::broadcast(m.unit.companion);
        const u64 rest = source % m.q;
        const V minus = L::broadcast(rest == 0 ? 0 : m.q - rest);
        const V half = L::broadcast(source / 2);
        for (std::size_t i = 0; i < n; i += W) {
            const V d = L::load(digit + i);
            V x = L::reduce_once(L::mul_lazy(d, f, c, q), q);
            if (how == Lift::centred) {
                x = L::add_if_above(x, d, half, minus);
            } else if (mask != nullptr) {
                x = L::mask_nonzero(x, d, mask + i, minus);
            }
            L::store(out + i, L::reduce_once(x, q));
        }
    }
    static void permute(u64* out, const u64* a, const std::uint32_t* table, std::size_t n) {
        // Word by word: gathers are slower than this on every processor that was tried.
        for (std::size_t i = 0; i < n; ++i) out[i] = a[table[i]];
    }

    static Kernels table(const char* name) {
        return {name,      L::lanes,     L::limit,        L::companion, L::radix,
                Ntt<L>::forward, Ntt<L>::inverse, add,  multiply,     cross,
                scale,     scale_add,    subtract_scale,  weighted,     switch_row,
                combine,   lift,      blake2_leaves, permute};
    }
};

}  // namespace he
