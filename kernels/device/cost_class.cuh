// Which blocks of the rasterizer begin first. What takes long must not be the last to begin; what the last frame took
// tells, near enough. Counted in `skin`, placed in `deform`, both by many threads at once. Within a class the order
// differs from run to run; the picture does not depend on it.
#pragma once

#include "kernels/cuda_stages.h"

namespace being::cuda {

// 0: the costliest; the last one: background alone.
__device__ inline unsigned cost_class(const BlockCost& cost) {
    uint32_t largest = 0;
#pragma unroll
    for (const uint32_t list : cost.list) largest = max(largest, list);
    return largest == 0 ? kCostClasses - 1 : kCostClasses - 2 - min(largest / kCostPerClass, kCostClasses - 2u);
}

// Adds one per lane to its class, and returns what was there before; half of all blocks are background alone, which one
// lane adds for all. By a whole warp.
__device__ inline uint32_t take_place(uint32_t* counter, unsigned c, bool present, unsigned lane) {
    const bool empty = present && c == kCostClasses - 1;
    const uint32_t same = __ballot_sync(~0u, empty);
    const unsigned leader = same ? __ffs(int(same)) - 1 : 0;
    uint32_t place = 0;
    if (empty && lane == leader) place = atomicAdd(counter + c, uint32_t(__popc(same)));
    place = __shfl_sync(~0u, place, int(leader)) + __popc(same & ((1u << lane) - 1));
    if (present && !empty) place = atomicAdd(counter + c, 1u);
    return place;
}

}  // namespace being::cuda
