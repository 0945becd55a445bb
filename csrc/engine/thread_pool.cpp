#include "csrc/engine/thread_pool.h"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace being {
namespace {

// About 30 microseconds on current machines: longer than a balanced stage makes anyone wait, shorter than a time slice.
constexpr int kSpins = 1000;
// About a millisecond of yielding before a thread without work goes to sleep: frames drawn back to back find it awake.
constexpr int kYields = 2000;

constexpr uint64_t kRound = uint64_t(1) << 32;

// On a machine that does other work as well, Linux may wake a thread on the very core that its caller runs on, and
// leave both there for seconds: then two threads draw no faster than one. A thread that finds itself there moves away,
// by a detour over its set of allowed cores, which is the old one again afterwards.
int current_core() {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

void leave_core([[maybe_unused]] int core) {
#if defined(__linux__)
    cpu_set_t allowed;
    if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    cpu_set_t others = allowed;
    CPU_CLR(core, &others);
    if (CPU_COUNT(&others) == 0) return;
    sched_setaffinity(0, sizeof others, &others);
    sched_setaffinity(0, sizeof allowed, &allowed);
#endif
}

void pause_or_yield(int turn) {
    if (turn >= kSpins) return std::this_thread::yield();
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int count) : count_(count) {
    for (int i = 1; i < count; ++i) threads_.emplace_back([this] { loop(); });
}

ThreadPool::~ThreadPool() {
    stop_ = true;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(Call call, const void* context, int parts) {
    call_ = call;
    context_ = context;
    parts_ = parts;
    caller_core_.store(current_core(), std::memory_order_relaxed);
    finished_.store(0, std::memory_order_relaxed);
    const uint64_t round = ticket_.load(std::memory_order_relaxed) / kRound + 1;
    // In one total order with the sleepers' count: either this sees a sleeper, or the sleeper-to-be sees the round.
    ticket_.store(round * kRound + uint64_t(parts), std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) > 0) {
        const std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
    while (claim_and_work()) {
    }
    for (int turn = 0; finished_.load(std::memory_order_acquire) < parts; ++turn) pause_or_yield(turn);
}

// Runs one call of the current round, if one is left.
bool ThreadPool::claim_and_work() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    do {
        if (ticket % kRound == 0) return false;
    } while (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire));
    call_(context_, {parts_ - int(ticket % kRound), parts_});
    finished_.fetch_add(1, std::memory_order_release);
    return true;
}

void ThreadPool::loop() {
    for (int turn = 0; !stop_.load(std::memory_order_relaxed);) {
        if (claim_and_work()) {
            turn = 0;
        } else if (turn < kSpins + kYields) {
            if (turn == 0 && current_core() == caller_core_.load(std::memory_order_relaxed)) leave_core(current_core());
            pause_or_yield(turn++);
        } else {
            std::unique_lock<std::mutex> lock(mutex_);
            sleeping_.fetch_add(1, std::memory_order_seq_cst);
            wake_.wait(lock, [this] { return stop_ || ticket_.load(std::memory_order_seq_cst) % kRound != 0; });
            sleeping_.fetch_sub(1, std::memory_order_relaxed);
            turn = 0;
        }
    }
}

}  // namespace being
