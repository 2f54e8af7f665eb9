// Aligned words that are not cleared, and an arena for the intermediate values of one call.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
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

inline Words make_words(std::size_t count, std::size_t alignment = kAlignment) {
    const std::size_t bytes = (count * sizeof(u64) + alignment - 1) / alignment * alignment;
    void* p = std::aligned_alloc(alignment, bytes == 0 ? alignment : bytes);
    if (p == nullptr) throw std::bad_alloc();
    return Words(static_cast<u64*>(p));
}

// Memory that one call takes piece by piece and gives back at its end, last taken first. Each
// thread keeps its slabs between calls: fresh pages cost more than the arithmetic on them, and
// large pages spare address translations.
class Arena {
   public:
    Arena() : stack_(stack()), slab_(stack_.slab), used_(stack_.used) {}
    Arena(const Arena&) = delete;
    ~Arena() {
        stack_.slab = slab_;
        stack_.used = used_;
        if (slab_ == 0 && used_ == 0) {
            // A large call's slabs do not outlive it, but for the first.
            while (stack_.slabs.size() > 1) stack_.slabs.pop_back();
        }
    }
    u64* take(std::size_t count) {
        count = (count + kAlignment / sizeof(u64) - 1) / (kAlignment / sizeof(u64)) *
                (kAlignment / sizeof(u64));
        while (stack_.slab < stack_.slabs.size()) {
            Slab& slab = stack_.slabs[stack_.slab];
            if (slab.count - stack_.used >= count) {
                u64* p = slab.words.get() + stack_.used;
                stack_.used += count;
                return p;
            }
            ++stack_.slab;
            stack_.used = 0;
        }
        const std::size_t size = std::max(count, kSlab);
        stack_.slabs.push_back({make_words(size, kHugePage), size});
#if defined(__linux__)
        madvise(stack_.slabs.back().words.get(), size * sizeof(u64), MADV_HUGEPAGE);
#endif
        stack_.slab = stack_.slabs.size() - 1;
        stack_.used = count;
        return stack_.slabs.back().words.get();
    }

   private:
    static constexpr std::size_t kSlab = std::size_t{4} << 20;  // 32 MiB, touched as needed
    struct Slab {
        Words words;
        std::size_t count;
    };
    struct Stack {
        std::vector<Slab> slabs;
        std::size_t slab = 0, used = 0;
    };
    static Stack& stack() {
        thread_local Stack kept;
        return kept;
    }
    Stack& stack_;
    std::size_t slab_, used_;
};

}  // namespace he
