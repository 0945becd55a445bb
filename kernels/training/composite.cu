// The operations `composite` and `over` on CUDA: one thread per pixel, one block per 256 of them. Bound by memory: 56
// bytes a pixel forward, 96 backward, plus the background's 12 where it is a picture; backward 56 where a block's
// gradient is all 0, as that of a loss is where nothing but background is seen, for then there is nothing to read. Sums
// of five floats go through shared memory, so that each of them is read and written once, in whole sectors; a stride of
// five has no bank conflicts.
#include <cuda_runtime.h>

#include "kernels/common/composite_gradient.h"
#include "kernels/training/composite.h"

namespace being::training {
namespace {

constexpr int kThreads = 256, kFloats = kThreads * kLayerSums;

// Sums of `count` floats from or to memory, by the whole block.
__device__ void copy(const float* from, float* to, int count) {
#pragma unroll
    for (int n = 0; n < kLayerSums; ++n)
        if (const int i = n * kThreads + int(threadIdx.x); i < count) to[i] = from[i];
}

__device__ void fill_zeros(float* to, int count) {
#pragma unroll
    for (int n = 0; n < kLayerSums; ++n)
        if (const int i = n * kThreads + int(threadIdx.x); i < count) to[i] = 0;
}

// Where a block's pixels are.
struct Part {
    int64_t first;  // pixel, of the batch
    int count;      // of its pixels
    int pixel;      // of this thread, in its picture
};

__device__ Part part_of(const CompositeStage<float>& s) {
    const int pixels = s.height * s.width, begin = int(blockIdx.x) * kThreads;
    return {int64_t(blockIdx.y) * pixels + begin, min(kThreads, pixels - begin), begin + int(threadIdx.x)};
}

template <bool kTorso>
__global__ void __launch_bounds__(kThreads) composite_kernel(CompositeStage<float> s) {
    __shared__ float head[kFloats], torso[kTorso ? kFloats : 1];
    const Part part = part_of(s);
    const int t = int(threadIdx.x);
    copy(s.head + part.first * kLayerSums, head, part.count * kLayerSums);
    if (kTorso) copy(s.torso + part.first * kLayerSums, torso, part.count * kLayerSums);
    __syncthreads();
    if (t >= part.count) return;

    const Vector3<float> background = s.background.at(int(blockIdx.y), part.pixel / s.width, part.pixel % s.width);
    float picture[4];
    composite_sums<kTorso>(head + t * kLayerSums, torso + (kTorso ? t * kLayerSums : 0), s.inverse_softness, background,
                           picture);
    reinterpret_cast<float4*>(s.picture)[part.first + t] = {picture[0], picture[1], picture[2], picture[3]};
}

template <bool kTorso>
__global__ void __launch_bounds__(kThreads) composite_backward_kernel(CompositeStage<float> s) {
    __shared__ float head[kFloats], torso[kTorso ? kFloats : 1];
    const Part part = part_of(s);
    const int t = int(threadIdx.x);
    float4 given{0, 0, 0, 0};
    if (t < part.count) given = reinterpret_cast<const float4*>(s.picture_gradient)[part.first + t];
    if (!__syncthreads_or(given.x != 0 || given.y != 0 || given.z != 0 || given.w != 0)) {
        fill_zeros(s.head_gradient + part.first * kLayerSums, part.count * kLayerSums);
        if (kTorso) fill_zeros(s.torso_gradient + part.first * kLayerSums, part.count * kLayerSums);
        return;
    }
    copy(s.head + part.first * kLayerSums, head, part.count * kLayerSums);
    if (kTorso) copy(s.torso + part.first * kLayerSums, torso, part.count * kLayerSums);
    __syncthreads();
    if (t < part.count) {
        const Vector3<float> background = s.background.at(int(blockIdx.y), part.pixel / s.width, part.pixel % s.width);
        const float gradient[4] = {given.x, given.y, given.z, given.w};
        float *head_sums = head + t * kLayerSums, *torso_sums = torso + (kTorso ? t * kLayerSums : 0);
        composite_sums_gradient<kTorso>(head_sums, torso_sums, s.inverse_softness, background, gradient, head_sums,
                                        torso_sums);
    }
    __syncthreads();
    copy(head, s.head_gradient + part.first * kLayerSums, part.count * kLayerSums);
    if (kTorso) copy(torso, s.torso_gradient + part.first * kLayerSums, part.count * kLayerSums);
}

// A row of the grid per picture.
dim3 grid_of(const CompositeStage<float>& s) {
    return {unsigned((s.height * s.width + kThreads - 1) / kThreads), unsigned(s.pictures)};
}

}  // namespace

void launch_composite(const CompositeStage<float>& stage, CUstream_st* stream) {
    const auto kernel = stage.torso ? composite_kernel<true> : composite_kernel<false>;
    kernel<<<grid_of(stage), kThreads, 0, stream>>>(stage);
}

void launch_composite_backward(const CompositeStage<float>& stage, CUstream_st* stream) {
    const auto kernel = stage.torso ? composite_backward_kernel<true> : composite_backward_kernel<false>;
    kernel<<<grid_of(stage), kThreads, 0, stream>>>(stage);
}

}  // namespace being::training
