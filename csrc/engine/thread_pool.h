// Threads that draw one frame together.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/launch.h"

namespace being {

// share(work, parts) calls work(Worker{i, parts}) once for each i below `parts`, on whichever threads are there, and
// returns when all calls have. A share is claimed by the thread that runs it: one that the system has not scheduled
// claims none, so it holds nobody up; the caller does the work of all if need be. (With a barrier that waits for every
// thread instead, a machine that is busy otherwise cost a time slice, 4 ms, per frame.)
//
// Threads spin between shares, because stages last tens of microseconds; they sleep between frames. One caller at a
// time.
class ThreadPool {
  public:
    explicit ThreadPool(int count);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int count() const { return count_; }

    template <class Work>
    void share(const Work& work, int parts) {
        if (parts == 1) return work(Worker{0, 1});
        run([](const void* context, Worker worker) { (*static_cast<const Work*>(context))(worker); }, &work, parts);
    }
    template <class Work>
    void share(const Work& work) {
        share(work, count_);
    }

  private:
    using Call = void (*)(const void* context, Worker worker);

    void run(Call call, const void* context, int parts);
    bool claim_and_work();
    void loop();

    const int count_;
    // Of the current share(): the round's number in the upper half, how many calls are unclaimed in the lower. Claiming
    // is taking one from a value that was seen, so it fails once the round is over; and until a claimed call has
    // finished, the round is not over, so its call_ and context_ stand.
    std::atomic<uint64_t> ticket_{0};
    std::atomic<int> finished_{0};
    Call call_ = nullptr;
    const void* context_ = nullptr;
    int parts_ = 0;

    std::atomic<int> caller_core_{-1}, sleeping_{0};
    std::atomic<bool> stop_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
};

}  // namespace being
