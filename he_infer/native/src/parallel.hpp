// Independent pieces of one call on a given number of threads.
#pragma once

#include <cstddef>
#include <functional>

namespace he {

// Runs work(0) … work(count − 1) on `threads` threads, the calling one among them. The others
// are kept between calls and shared by all callers; a nested call runs where it is.
void parallel_for(int threads, std::size_t count, const std::function<void(std::size_t)>& work);

}  // namespace he
