#include "ring.hpp"

#include <algorithm>
#include <stdexcept>

#include "parallel.hpp"

namespace he {
namespace {

std::uint32_t reverse_bits(std::uint32_t x, int bits) {
    std::uint32_t result = 0;
    for (int i = 0; i < bits; ++i) result |= ((x >> i) & 1u) << (bits - 1 - i);
    return result;
}

bool cpu_has(const std::string& path) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    // The processor first: asking for a path's kernels already runs its instructions.
    if (path == "avx2") {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               avx2_kernels() != nullptr;
    }
    if (path == "ifma") {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512ifma") &&
               __builtin_cpu_supports("avx512vbmi") && ifma_kernels() != nullptr;
    }
#endif
    return path == "scalar";
}

const Kernels& kernels_named(const std::string& path) {
    if (path == "ifma") return *ifma_kernels();
    if (path == "avx2") return *avx2_kernels();
    return scalar_kernels();
}

// The smallest primitive 2n-th root of unity, as SEAL takes it.
u64 minimal_root(std::size_t n, u64 q) {
    u64 root = 0;
    for (u64 x = 2; root == 0; ++x) {
        const u64 candidate = pow_mod(x, (q - 1) / (2 * n), q);
        if (pow_mod(candidate, n, q) == q - 1) root = candidate;
    }
    const u64 square = mul_mod(root, root, q);
    u64 best = root, current = root;
    for (std::size_t i = 1; i < n; ++i) {
        current = mul_mod(current, square, q);
        best = std::min(best, current);
    }
    return best;
}

Modulus constants(u64 q, const Kernels& k) {
    const u64 fold = pow_mod(2, static_cast<u64>(k.radix), q);
    return {q, {fold, k.companion(fold, q)}, {1, k.companion(1, q)}};
}

Prime make_prime(std::size_t n, u64 q, const Kernels& k) {
    Prime p;
    p.kernels = &k;
    p.modulus = constants(q, k);
    p.portable = constants(q, scalar_kernels());
    int log_n = 0;
    while ((std::size_t{1} << log_n) < n) ++log_n;
    const u64 psi = minimal_root(n, q), psi_inverse = inverse_mod(psi, q);
    const auto lanes = static_cast<std::size_t>(k.lanes);
    const std::size_t tail = n / (lanes * lanes) * (lanes - 1) * lanes;
    p.storage.resize(4 * n + 4 * tail);
    u64* root = p.storage.data();
    u64* inverse = root + 2 * n;
    u64* tails = inverse + 2 * n;
    u64 power = 1, back = 1;
    for (std::size_t i = 0; i < n; ++i) {
        const std::size_t at = reverse_bits(static_cast<std::uint32_t>(i), log_n);
        root[at] = power;
        inverse[at] = back;
        power = mul_mod(power, psi, q);
        back = mul_mod(back, psi_inverse, q);
    }
    for (std::size_t i = 0; i < n; ++i) {
        root[n + i] = k.companion(root[i], q);
        inverse[n + i] = k.companion(inverse[i], q);
    }
    std::size_t at = 0;
    for (std::size_t chunk = 0; chunk < n / (lanes * lanes) && lanes > 1; ++chunk) {
        for (std::size_t half = lanes / 2; half >= 1; half /= 2) {
            const std::size_t groups = lanes / (2 * half), m = n / (2 * half);
            for (std::size_t g = 0; g < groups; ++g) {
                for (std::size_t lane = 0; lane < lanes; ++lane, ++at) {
                    const std::size_t index = m + (chunk * lanes + lane) * groups + g;
                    tails[at] = root[index];
                    tails[tail + at] = root[n + index];
                    tails[2 * tail + at] = inverse[index];
                    tails[3 * tail + at] = inverse[n + index];
                }
            }
        }
    }
    Twiddles& t = p.twiddles;
    t.n = n;
    t.log_n = log_n;
    t.root = root;
    t.root_companion = root + n;
    t.inverse = inverse;
    t.inverse_companion = inverse + n;
    t.tail = tails;
    t.tail_companion = tails + tail;
    t.inverse_tail = tails + 2 * tail;
    t.inverse_tail_companion = tails + 3 * tail;
    const u64 scale = inverse_mod(n, q);
    t.n_inverse = p.factor(scale);
    t.last_n_inverse = p.factor(mul_mod(scale, inverse[1], q));
    return p;
}

}  // namespace

std::vector<std::string> available_paths() {
    std::vector<std::string> found;
    for (const char* path : {"ifma", "avx2", "scalar"}) {
        if (cpu_has(path)) found.emplace_back(path);
    }
    return found;
}

Ring::Ring(std::size_t n, std::vector<u64> moduli, const std::string& path)
    : n_(n), moduli_(std::move(moduli)) {
    const auto paths = available_paths();
    path_ = path == "best" ? paths.front() : path;
    if (std::find(paths.begin(), paths.end(), path_) == paths.end()) {
        throw std::invalid_argument("this machine has no path '" + path + "'");
    }
    if (n < 1024 || n > 65536 || (n & (n - 1)) != 0) {
        throw std::invalid_argument("the ring degree must be a power of two from 1024 to 65536");
    }
    if (moduli_.size() < 2) throw std::invalid_argument("give data primes and a special prime");
    const Kernels& wanted = kernels_named(path_);
    primes_.reserve(moduli_.size());
    for (const u64 q : moduli_) {
        if (q < 3 || q >= scalar_kernels().limit || q % (2 * n) != 1) {
            throw std::invalid_argument("a modulus is not a prime below 2^61 that is 1 mod 2n");
        }
        primes_.push_back(make_prime(n, q, q < wanted.limit ? wanted : scalar_kernels()));
    }
}

void Ring::lift(u64* out, const u64* digit, u64 source, Lift how, const unsigned char* mask,
                const Prime& target) const {
    // The vector paths read words of at most 52 bits.
    if (target.kernels->radix < 64 && source >> 52 != 0) {
        scalar_kernels().lift(out, digit, source, how, mask, n_, target.portable);
    } else {
        target.kernels->lift(out, digit, source, how, mask, n_, target.modulus);
    }
}

u64 Ring::inverse_of(int divisor, int modulus) const {
    const u64 q = moduli_[static_cast<std::size_t>(modulus)];
    return inverse_mod(moduli_[static_cast<std::size_t>(divisor)] % q, q);
}

void Ring::divide_last(u64* out, const u64* poly, const std::vector<int>& rows,
                       int threads) const {
    Arena arena;
    const std::size_t last = rows.size() - 1;
    u64* remainder = arena.take(n_);
    const Prime& divisor = prime(rows[last]);
    std::copy(poly + last * n_, poly + (last + 1) * n_, remainder);
    inverse(remainder, divisor);
    u64* lifted = arena.take(last * n_);
    parallel_for(threads, last, [&](std::size_t r) {
        const Prime& p = prime(rows[r]);
        u64* x = lifted + r * n_;
        lift(x, remainder, divisor.modulus.q, Lift::centred, nullptr, p);
        forward(x, p);
        p.kernels->subtract_scale(out + r * n_, poly + r * n_, x,
                                  p.factor(inverse_of(rows[last], rows[r])), n_, p.modulus);
    });
}

void Ring::divide_twice(u64* out, const u64* poly, int level, int threads) const {
    Arena arena;
    const auto rows = static_cast<std::size_t>(level);
    const Prime& by_special = prime(special());
    const Prime& by_data = prime(level);
    u64* first = arena.take(n_);
    u64* second = arena.take(n_);
    std::copy(poly + (rows + 1) * n_, poly + (rows + 2) * n_, first);
    std::copy(poly + rows * n_, poly + (rows + 1) * n_, second);
    inverse(first, by_special);
    inverse(second, by_data);
    u64* lifted = arena.take((rows + 1) * n_);
    // What the division by P leaves modulo q_level, still as coefficients.
    lift(lifted, first, by_special.modulus.q, Lift::centred, nullptr, by_data);
    by_data.kernels->subtract_scale(second, second, lifted,
                                    by_data.factor(inverse_of(special(), level)), n_,
                                    by_data.modulus);
    parallel_for(threads, rows, [&](std::size_t r) {
        const Prime& p = prime(static_cast<int>(r));
        const int index = static_cast<int>(r);
        u64* x = lifted + r * n_;
        u64* y = out + r * n_;
        // The remainder of both divisions together: r_P + P·r_q.
        Words rest = make_words(n_);
        lift(x, first, by_special.modulus.q, Lift::centred, nullptr, p);
        lift(rest.get(), second, by_data.modulus.q, Lift::centred, nullptr, p);
        p.kernels->scale_add(x, rest.get(), p.factor(by_special.modulus.q % p.modulus.q), n_,
                             p.modulus);
        forward(x, p);
        const u64 inverse = mul_mod(inverse_of(special(), index), inverse_of(level, index),
                                    p.modulus.q);
        p.kernels->subtract_scale(y, poly + r * n_, x, p.factor(inverse), n_, p.modulus);
    });
}

const Automorphism& Ring::automorphism(std::uint32_t element) const {
    std::lock_guard<std::mutex> lock(mutex_);
    auto& found = automorphisms_[element];
    if (found == nullptr) {
        found = std::make_unique<Automorphism>();
        const auto n = static_cast<std::uint32_t>(n_);
        const int log_n = primes_[0].twiddles.log_n;
        found->table.resize(n_);
        found->flips.resize(n_);
        for (std::uint32_t i = 0; i < n; ++i) {
            const std::uint32_t reversed = reverse_bits(n + i, log_n + 1);
            const u64 raw = (static_cast<u64>(element) * reversed) >> 1;
            found->table[i] = reverse_bits(static_cast<std::uint32_t>(raw) & (n - 1), log_n);
            found->flips[i] = (static_cast<u64>(element) * i) % (2 * n_) >= n_ ? 1 : 0;
        }
    }
    return *found;
}

}  // namespace he
