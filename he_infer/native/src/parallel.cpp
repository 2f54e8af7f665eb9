#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__)
#include <unistd.h>
#endif

namespace he {
namespace {

struct Job {
    const std::function<void(std::size_t)>* work;
    std::size_t count;
    std::atomic<std::size_t> next{0};
    std::size_t helpers = 0;  // inside `run`; guarded by the pool's mutex
    std::mutex failing;
    std::exception_ptr failure;

    void run() {
        for (std::size_t i = next++; i < count; i = next++) {
            try {
                (*work)(i);
            } catch (...) {
                std::lock_guard<std::mutex> lock(failing);
                if (!failure) failure = std::current_exception();
            }
        }
    }
};

thread_local bool inside = false;

class Pool {
   public:
    void run(int threads, std::size_t count, const std::function<void(std::size_t)>& work) {
        const auto job = std::make_shared<Job>();
        job->work = &work;
        job->count = count;
        const std::size_t wanted = std::min(static_cast<std::size_t>(threads), count) - 1;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            while (workers_ < wanted) {
                std::thread([this] { serve(); }).detach();
                ++workers_;
            }
            for (std::size_t i = 0; i < wanted; ++i) waiting_.push_back(job);
        }
        arrived_.notify_all();
        inside = true;
        job->run();
        inside = false;
        std::unique_lock<std::mutex> lock(mutex_);
        waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), job), waiting_.end());
        finished_.wait(lock, [&] { return job->helpers == 0; });
        if (job->failure) std::rethrow_exception(job->failure);
    }

   private:
    void serve() {
        inside = true;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            arrived_.wait(lock, [&] { return !waiting_.empty(); });
            const auto job = waiting_.front();
            waiting_.pop_front();
            ++job->helpers;
            lock.unlock();
            job->run();
            lock.lock();
            --job->helpers;
            finished_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable arrived_, finished_;
    std::deque<std::shared_ptr<Job>> waiting_;
    std::size_t workers_ = 0;
};

// One pool a process. It is never destroyed, since its threads wait until the process ends; a
// forked child has none of them and starts its own.
Pool& pool() {
    static Pool* current = nullptr;
    static std::mutex mutex;
    std::lock_guard<std::mutex> lock(mutex);
#if defined(__unix__)
    static pid_t owner = 0;
    if (owner != getpid()) {
        owner = getpid();
        current = nullptr;
    }
#endif
    if (current == nullptr) current = new Pool;
    return *current;
}

}  // namespace

void parallel_for(int threads, std::size_t count, const std::function<void(std::size_t)>& work) {
    if (threads <= 1 || count <= 1 || inside) {
        for (std::size_t i = 0; i < count; ++i) work(i);
        return;
    }
    pool().run(threads, count, work);
}

}  // namespace he
