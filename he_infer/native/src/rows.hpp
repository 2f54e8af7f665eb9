// Row lists and index conversions that the evaluator's files share.
#pragma once

#include <vector>

#include "ring.hpp"

namespace he {

inline std::size_t z(int x) { return static_cast<std::size_t>(x); }

inline std::vector<int> data_rows(int level) {
    std::vector<int> rows(z(level + 1));
    for (int r = 0; r <= level; ++r) rows[z(r)] = r;
    return rows;
}

inline std::vector<int> extended_rows(const Ring& ring, int level) {
    auto rows = data_rows(level);
    rows.push_back(ring.special());
    return rows;
}

}  // namespace he
