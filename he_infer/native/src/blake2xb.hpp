// BLAKE2Xb (Aumasson and others, 2016) as SEAL's generator uses it, and SEAL's uniform residues.
#pragma once

#include <vector>

#include "kernels.hpp"

namespace he {

constexpr std::size_t kSeedBytes = 64;

// Residues modulo each of `moduli`, n of each in turn, as SEAL expands them from a seed.
void expand_seed(const unsigned char* seed, const std::vector<u64>& moduli, std::size_t n,
                 u64* out, const Kernels& kernels);

}  // namespace he
