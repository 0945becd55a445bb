// Threads that draw one frame together.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/launch.h"

namespace being {

// run() hands a function to every worker, the caller being worker 0, and returns when all are done. Inside it,
// barrier() waits for all. Waiting spins, because stages last tens of microseconds; it yields when the machine is short
// of cores, and workers sleep between frames.
class ThreadPool {
  public:
    explicit ThreadPool(int count);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int count() const { return count_; }
    void run(const std::function<void(Worker)>& work);
    void barrier();

  private:
    void loop(int index);

    const int count_;
    const std::function<void(Worker)>* work_ = nullptr;
    std::atomic<unsigned> generation_{0}, finished_{0};
    std::atomic<unsigned> arrived_{0}, phase_{0};
    std::atomic<bool> stop_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
};

}  // namespace being
