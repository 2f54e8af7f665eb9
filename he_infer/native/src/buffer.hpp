// Aligned words that are not cleared, and an arena for the intermediate values of one call.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "modulus.hpp"

namespace he {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

struct FreeWords {
    void operator()(u64* p) const { std::free(p); }
};
using Words = std::unique_ptr<u64[], FreeWords>;

inline Words make_words(std::size_t count) {
    const std::size_t bytes = (count * sizeof(u64) + kAlignment - 1) / kAlignment * kAlignment;
    void* p = std::aligned_alloc(kAlignment, bytes == 0 ? kAlignment : bytes);
    if (p == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    // Keys and rotations are read from end to end: fewer, larger pages are faster.
    if (bytes >= kHugePage) {
        const auto start = (reinterpret_cast<std::uintptr_t>(p) + 4095) / 4096 * 4096;
        madvise(reinterpret_cast<void*>(start), bytes - 4096, MADV_HUGEPAGE);
    }
#endif
    return Words(static_cast<u64*>(p));
}

// Memory that one call takes piece by piece and gives back at its end; a thread keeps what it
// has, up to `kKept`, because fresh pages cost more than the arithmetic on them.
class Arena {
   public:
    Arena() : pool_(pool()) {}
    Arena(const Arena&) = delete;
    ~Arena() {
        for (auto& piece : taken_) {
            if (pool_.words + piece.count <= kKept) {
                pool_.words += piece.count;
                pool_.free.push_back(std::move(piece));
            }
        }
    }
    u64* take(std::size_t count) {
        std::size_t best = pool_.free.size();
        for (std::size_t i = 0; i < pool_.free.size(); ++i) {
            if (pool_.free[i].count >= count &&
                (best == pool_.free.size() || pool_.free[i].count < pool_.free[best].count)) {
                best = i;
            }
        }
        if (best != pool_.free.size() && pool_.free[best].count <= 2 * count) {
            taken_.push_back(std::move(pool_.free[best]));
            pool_.words -= taken_.back().count;
            pool_.free.erase(pool_.free.begin() + static_cast<std::ptrdiff_t>(best));
        } else {
            taken_.push_back({make_words(count), count});
        }
        return taken_.back().words.get();
    }

   private:
    static constexpr std::size_t kKept = std::size_t{1} << 24;  // 128 MiB
    struct Piece {
        Words words;
        std::size_t count;
    };
    struct Pool {
        std::vector<Piece> free;
        std::size_t words = 0;
    };
    static Pool& pool() {
        thread_local Pool kept;
        return kept;
    }
    Pool& pool_;
    std::vector<Piece> taken_;
};

}  // namespace he
