// FusedAdam on CUDA: one launch for all tensors. A block takes 4096 numbers of one of them. It is bound by memory: 16
// bytes read and 12 written per number. The table of tensors is the kernel's argument: a captured graph holds it, and
// there is no copy in memory that could be out of date.
//
// Blocks that wait for their turn keep those of later kernels waiting as well, and an optimizer of a hundred million
// bytes has thousands. Beside other work it therefore takes no more blocks than half fill the device, which the memory
// hardly notices, and they take one chunk after the other.
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/common/adam.h"
#include "kernels/training/adam.h"

namespace being::training {
namespace {

constexpr int kThreads = 256, kVector = 4;
constexpr int kBlocksBeside = 4;  // on a multiprocessor
static_assert(kAdamChunk % (kThreads * kVector) == 0);
static_assert(sizeof(AdamStage<float>) <= 4096);

__device__ void step_four(const AdamRates<float>& rates, const AdamSegment<float>& s, int64_t i) {
    const float4 gradient = *reinterpret_cast<const float4*>(s.gradient + i);
    float4 parameter = *reinterpret_cast<float4*>(s.parameter + i);
    float4 first = *reinterpret_cast<float4*>(s.first + i), second = *reinterpret_cast<float4*>(s.second + i);
    adam_step(rates, gradient.x, parameter.x, first.x, second.x);
    adam_step(rates, gradient.y, parameter.y, first.y, second.y);
    adam_step(rates, gradient.z, parameter.z, first.z, second.z);
    adam_step(rates, gradient.w, parameter.w, first.w, second.w);
    *reinterpret_cast<float4*>(s.parameter + i) = parameter;
    *reinterpret_cast<float4*>(s.first + i) = first;
    *reinterpret_cast<float4*>(s.second + i) = second;
}

__device__ bool aligned(const AdamSegment<float>& s) {
    return (reinterpret_cast<uintptr_t>(s.parameter) | reinterpret_cast<uintptr_t>(s.gradient) |
            reinterpret_cast<uintptr_t>(s.first) | reinterpret_cast<uintptr_t>(s.second)) %
               sizeof(float4) ==
           0;
}

__device__ void step_chunk(const AdamStage<float>& stage, int chunk) {
    const int t = int(threadIdx.x);
    const AdamSegment<float>& s = stage.segment[segment_of(stage, chunk)];
    const AdamRates<float> rates = adam_rates(stage.learning_rate[s.rate], float(*stage.steps + 1),
                                              stage.first_forgetting, s.second_forgetting, stage.epsilon[s.rate]);
    const int64_t begin = int64_t(chunk - s.first_chunk) * kAdamChunk;
    const int count = int(s.size - begin < kAdamChunk ? s.size - begin : kAdamChunk);

    // Whole vectors, then what is left over; all of it one by one where an address is not a vector's.
    const int vectors = aligned(s) ? count / kVector : 0;
#pragma unroll
    for (int n = 0; n < kAdamChunk / (kThreads * kVector); ++n)
        if (const int v = n * kThreads + t; v < vectors) step_four(rates, s, begin + v * kVector);
    for (int i = vectors * kVector + t; i < count; i += kThreads)
        adam_step(rates, s.gradient[begin + i], s.parameter[begin + i], s.first[begin + i], s.second[begin + i]);
}

__global__ void __launch_bounds__(kThreads) adam_kernel(const __grid_constant__ AdamStage<float> stage) {
    if (stage.skip && *stage.skip != 0) return;
    for (int chunk = int(blockIdx.x); chunk < stage.chunks; chunk += int(gridDim.x)) step_chunk(stage, chunk);

    // The block that ends last advances the counter: all others have read it by then.
    if (!stage.last) return;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        if (atomicAdd(stage.ticket, 1) == int(gridDim.x) - 1) {
            *stage.ticket = 0;
            *stage.steps += 1;
        }
    }
}

}  // namespace

void launch_adam(const AdamStage<float>& stage, CUstream_st* stream) {
    int blocks = stage.chunks;
    if (stage.beside) {
        int device = 0, multiprocessors = 1;
        cudaGetDevice(&device);
        cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
        blocks = std::min(blocks, kBlocksBeside * multiprocessors);
    }
    if (stage.last) blocks = std::max(blocks, 1);
    if (blocks > 0) adam_kernel<<<unsigned(blocks), kThreads, 0, stream>>>(stage);
}

}  // namespace being::training
