#include "csrc/engine/thread_pool.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace being {
namespace {

// About 30 microseconds on current machines: longer than a balanced stage makes anyone wait, shorter than a time slice.
constexpr int kSpins = 1000;
// About a millisecond of yielding before a worker without a frame goes to sleep: frames drawn back to back find it
// awake.
constexpr int kYields = 2000;

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#endif
}

template <class Condition>
void wait_until(Condition condition) {
    for (int i = 0; !condition(); ++i) {
        if (i < kSpins)
            pause();
        else
            std::this_thread::yield();
    }
}

}  // namespace

ThreadPool::ThreadPool(int count) : count_(count) {
    for (int i = 1; i < count; ++i) threads_.emplace_back([this, i] { loop(i); });
}

ThreadPool::~ThreadPool() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
        ++generation_;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(const std::function<void(Worker)>& work) {
    if (count_ > 1) {
        work_ = &work;
        finished_.store(0, std::memory_order_relaxed);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
    }
    work({0, count_});
    wait_until([this] { return finished_.load(std::memory_order_acquire) == unsigned(count_ - 1); });
}

void ThreadPool::barrier() {
    if (count_ == 1) return;
    const unsigned phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == unsigned(count_)) {
        arrived_.store(0, std::memory_order_relaxed);
        phase_.store(phase + 1, std::memory_order_release);
    } else {
        wait_until([this, phase] { return phase_.load(std::memory_order_acquire) != phase; });
    }
}

void ThreadPool::loop(int index) {
    for (unsigned seen = 0;;) {
        const auto called = [&] { return generation_.load(std::memory_order_acquire) != seen; };
        for (int i = 0; i < kSpins + kYields && !called(); ++i) {
            if (i < kSpins)
                pause();
            else
                std::this_thread::yield();
        }
        if (!called()) {
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, called);
        }
        ++seen;
        if (stop_) return;
        (*work_)({index, count_});
        finished_.fetch_add(1, std::memory_order_release);
    }
}

}  // namespace being
