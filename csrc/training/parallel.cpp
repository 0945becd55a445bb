#include "csrc/training/parallel.h"

#include <memory>
#include <mutex>
#include <thread>

namespace being::training {

void on_pool(const void* context, void (*call)(const void* context, Worker worker)) {
    // Never destroyed: at the process's end its threads may be gone already.
    static ThreadPool* const pool = new ThreadPool(int(std::max(1u, std::thread::hardware_concurrency())));
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    pool->share([&](Worker worker) { call(context, worker); });
}

}  // namespace being::training
