#include "kernels_of.hpp"
#include "lanes_scalar.hpp"

namespace he {

const Kernels& scalar_kernels() {
    static const Kernels kernels = KernelsOf<ScalarLanes>::table("scalar");
    return kernels;
}

}  // namespace he
