// Independent pieces of one call on a given number of threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace he {

// Runs work(0) … work(count − 1). Threads are started per call: tens of microseconds, against
// milliseconds of work; nothing lives on between calls.
template <class Work>
void parallel_for(int threads, std::size_t count, const Work& work) {
    if (threads <= 1 || count <= 1) {
        for (std::size_t i = 0; i < count; ++i) work(i);
        return;
    }
    std::atomic<std::size_t> next{0};
    const auto run = [&] {
        for (std::size_t i = next++; i < count; i = next++) work(i);
    };
    std::vector<std::thread> others;
    const std::size_t most = count < static_cast<std::size_t>(threads) ? count : threads;
    for (std::size_t t = 1; t < most; ++t) others.emplace_back(run);
    run();
    for (auto& one : others) one.join();
}

}  // namespace he
