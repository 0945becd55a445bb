// Rows of a tensor, one to a lane, and sums over lanes: what the training kernels share.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace being::cuda {

constexpr unsigned kAllLanes = ~0u;

// Up to 32 rows of a few floats each, which lie one after the other. A warp reads and writes them as one stretch, so
// that 32 lanes ask for 128 bytes in a row, and turns them by way of shared memory, where rows are an odd number of
// floats apart: neither way do lanes meet in a bank. All lanes must call.
template <int kWidth>
struct Rows {
    static constexpr int kStride = kWidth | 1;
    static constexpr int kFloats = 32 * kStride;  // of shared memory, per warp

    static __device__ float* row(float* shared, int lane) { return shared + lane * kStride; }

    // Reading is in two halves, so that everything that a lane needs is under way before it waits for the first.
    struct Fetched {
        float value[kWidth];
    };
    static __device__ Fetched fetch(const float* __restrict__ rows, int count, int lane) {
        Fetched fetched;
#pragma unroll
        for (int k = 0; k < kWidth; ++k) {
            const int element = k * 32 + lane;
            fetched.value[k] = element < count * kWidth ? rows[element] : 0.0f;
        }
        return fetched;
    }
    static __device__ void put(float* shared, const Fetched& fetched, int lane) {
        __syncwarp();
#pragma unroll
        for (int k = 0; k < kWidth; ++k) shared[place(k, lane)] = fetched.value[k];
        __syncwarp();
    }

    static __device__ void write(const float* shared, float* __restrict__ rows, int count, int lane) {
        __syncwarp();
#pragma unroll
        for (int k = 0; k < kWidth; ++k) {
            const int element = k * 32 + lane;
            if (element < count * kWidth) rows[element] = shared[place(k, lane)];
        }
        __syncwarp();
    }

  private:
    // Where element k * 32 + lane lies. After kPeriod times 32 elements whole rows are over: what changes with the lane
    // is then the same again, and a register holds it.
    static constexpr int kPeriod = kWidth % 16 == 0 ? 1 : kWidth % 4 == 0 ? kWidth / 4 : kWidth;
    static_assert(kPeriod * 32 % kWidth == 0);
    static __device__ int place(int k, int lane) {
        if constexpr (kStride == kWidth) return k * 32 + lane;
        const unsigned element = unsigned(k % kPeriod * 32 + lane);
        return int(element / kWidth * kStride + element % kWidth) + k / kPeriod * (kPeriod * 32 / kWidth * kStride);
    }
};

// A record of 4-byte members per lane in shared memory, word by word, so that lanes do not meet in a bank.
template <class Record>
struct LaneRecords {
    static constexpr int kWords = sizeof(Record) / 4;
    uint32_t words[kWords][32];

    __device__ void put(const Record& record, int lane) {
        uint32_t word[kWords];
        memcpy(word, &record, sizeof(Record));
#pragma unroll
        for (int k = 0; k < kWords; ++k) words[k][lane] = word[k];
    }
    __device__ Record get(int lane) const {
        uint32_t word[kWords];
#pragma unroll
        for (int k = 0; k < kWords; ++k) word[k] = words[k][lane];
        Record record;
        memcpy(&record, word, sizeof(Record));
        return record;
    }
};

// Sums over a warp's lanes of kValues values each, in the order of lanes: lane k gets the k-th. Lanes would need five
// exchanges per value to do it in registers; this is two accesses of shared memory, of 33 * kValues floats.
template <int kValues>
__device__ inline float sum_over_lanes(float* shared, const float (&values)[kValues], int lane) {
    static_assert(kValues <= 32);
    __syncwarp();
#pragma unroll
    for (int k = 0; k < kValues; ++k) shared[k * 33 + lane] = values[k];
    __syncwarp();
    float sum = 0;
    if (lane < kValues) {
#pragma unroll 8
        for (int other = 0; other < 32; ++other) sum += shared[lane * 33 + other];
    }
    __syncwarp();
    return sum;
}

// The sum of `count` floats by a block of kThreads; the same order whatever the device. Every thread gets it.
template <int kThreads>
__device__ inline float sum_by_block(const float* __restrict__ values, int count) {
    __shared__ float partial[kThreads / 32];
    float sum = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < count; i += kThreads) sum += values[i];
    for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(kAllLanes, sum, apart);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int warp = 0; warp < kThreads / 32; ++warp) sum += partial[warp];
    return sum;
}

}  // namespace being::cuda
