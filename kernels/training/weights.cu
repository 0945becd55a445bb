// The operation `box_weights` on CUDA: a thread per four pixels of a line, a block's worth of a line at a time.
#include <cuda_runtime.h>

#include "kernels/training/weights.h"

namespace being::training {
namespace {

constexpr int kThreads = 128, kPixels = 4;  // of a thread

__global__ void __launch_bounds__(kThreads) box_weight_kernel(const __grid_constant__ WeightStage<float> s) {
    const int x = (int(blockIdx.y) * kThreads + int(threadIdx.x)) * kPixels;
    if (x >= s.width) return;
    const int b = int(blockIdx.x) / s.height, y = int(blockIdx.x) % s.height;
    uint8_t* out = s.weight + size_t(blockIdx.x) * s.width + x;
    uint8_t weight[kPixels];
#pragma unroll
    for (int k = 0; k < kPixels; ++k) weight[k] = box_weight(s, b, y, x + k);
    if (s.width % kPixels == 0) {  // so that every line begins at a multiple of four bytes
        *reinterpret_cast<uchar4*>(out) = make_uchar4(weight[0], weight[1], weight[2], weight[3]);
        return;
    }
    for (int k = 0; k < kPixels && x + k < s.width; ++k) out[k] = weight[k];
}

}  // namespace

void launch_box_weights(const WeightStage<float>& stage, CUstream_st* stream) {
    constexpr int kSpan = kThreads * kPixels;
    const dim3 blocks(unsigned(stage.batch * stage.height), unsigned((stage.width + kSpan - 1) / kSpan));
    box_weight_kernel<<<blocks, kThreads, 0, stream>>>(stage);
}

}  // namespace being::training
