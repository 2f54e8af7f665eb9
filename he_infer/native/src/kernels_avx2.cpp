#include "kernels.hpp"

#if defined(__AVX2__) && defined(__FMA__)
#include "kernels_of.hpp"
#include "lanes_avx2.hpp"

namespace he {

const Kernels* avx2_kernels() {
    static const Kernels kernels = KernelsOf<Avx2Lanes>::table("avx2");
    return &kernels;
}

}  // namespace he
#else
namespace he {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace he
#endif
