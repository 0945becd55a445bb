// Sums over a grid in a fixed order: every block leaves its share, then one block adds the shares up.
#pragma once

#include <cuda_runtime.h>

namespace being::cuda {

constexpr int kShareThreads = 256;  // of the block that adds shares

// Each of `values` summed over a block of kThreads threads, for thread 0. Once per kernel, by all threads.
template <int kThreads, int kValues>
__device__ void block_sum(float (&values)[kValues]) {
    constexpr int kWarp = 32, kWarps = kThreads / kWarp;
    static_assert(kThreads % kWarp == 0);
    __shared__ float of_warp[kWarps][kValues];
    const int t = int(threadIdx.x);
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
#pragma unroll
        for (int apart = kWarp / 2; apart > 0; apart /= 2) values[i] += __shfl_xor_sync(~0u, values[i], apart);
        if (t % kWarp == 0) of_warp[t / kWarp][i] = values[i];
    }
    __syncthreads();
    if (t > 0) return;
#pragma unroll
    for (int i = 0; i < kValues; ++i)
#pragma unroll
        for (int warp = 1; warp < kWarps; ++warp) values[i] += of_warp[warp][i];
}

// Sums of `shares` rows of kValues, for thread 0 of the one block of kShareThreads that calls this.
template <int kValues>
__device__ void add_shares(const float* share, int shares, double (&sums)[kValues]) {
    __shared__ double of_thread[kValues][kShareThreads];
    const int t = int(threadIdx.x);
#pragma unroll
    for (int i = 0; i < kValues; ++i) sums[i] = 0;
#pragma unroll 8
    for (int row = t; row < shares; row += kShareThreads)
#pragma unroll
        for (int i = 0; i < kValues; ++i) sums[i] += double(share[size_t(row) * kValues + i]);
#pragma unroll
    for (int i = 0; i < kValues; ++i) of_thread[i][t] = sums[i];
    for (int half = kShareThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half)
#pragma unroll
            for (int i = 0; i < kValues; ++i) of_thread[i][t] += of_thread[i][t + half];
    }
#pragma unroll
    for (int i = 0; i < kValues; ++i) sums[i] = of_thread[i][t];
}

}  // namespace being::cuda
