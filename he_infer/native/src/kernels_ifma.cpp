#include "kernels.hpp"

#if defined(__AVX512IFMA__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512VBMI__)
#include "kernels_of.hpp"
#include "lanes_ifma.hpp"

namespace he {

const Kernels* ifma_kernels() {
    static const Kernels kernels = KernelsOf<IfmaLanes>::table("ifma");
    return &kernels;
}

}  // namespace he
#else
namespace he {
const Kernels* ifma_kernels() { return nullptr; }
}  // namespace he
#endif
