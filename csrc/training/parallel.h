// Loops over the machine's cores for the CPU side of the training operations.
#pragma once

#include <algorithm>
#include <atomic>

#include "csrc/engine/thread_pool.h"

namespace being::training {

// Runs work on the one pool of this process; a second caller waits.
void on_pool(const void* context, void (*call)(const void* context, Worker worker));

// work(i) for i in 0 .. count - 1, in chunks of `grain`, on all cores, in no particular order: results must not depend
// on it, so every i writes what no other writes.
template <class Work>
void parallel_for(int64_t count, int64_t grain, const Work& work) {
    if (count <= grain) {
        for (int64_t i = 0; i < count; ++i) work(i);
        return;
    }
    struct Loop {
        const Work& work;
        int64_t count, grain;
        mutable std::atomic<int64_t> next{0};
    };
    const Loop loop{work, count, grain};
    on_pool(&loop, [](const void* context, Worker) {
        const Loop& loop = *static_cast<const Loop*>(context);
        for (int64_t begin; (begin = loop.next.fetch_add(loop.grain)) < loop.count;)
            for (int64_t i = begin; i < std::min(loop.count, begin + loop.grain); ++i) loop.work(i);
    });
}

}  // namespace being::training
