// The operation `body_frames` on CUDA: a thread per number, both ways.
#include <cuda_runtime.h>

#include "kernels/training/body.h"

namespace being::training {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) body_kernel(const __grid_constant__ BodyStage<float> stage) {
    const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
    if (i < kBodyFloats * stage.frames) write_body(stage, i);
}

__global__ void __launch_bounds__(kThreads) body_gradient_kernel(const __grid_constant__ BodyStage<float> stage) {
    const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
    if (i < body_slopes(stage.frames)) write_body_gradient(stage, i);
}

unsigned blocks(int count) {
    return unsigned((count + kThreads - 1) / kThreads);
}

}  // namespace

void launch_body(const BodyStage<float>& stage, CUstream_st* stream) {
    body_kernel<<<blocks(kBodyFloats * stage.frames), kThreads, 0, stream>>>(stage);
}

void launch_body_backward(const BodyStage<float>& stage, CUstream_st* stream) {
    body_gradient_kernel<<<blocks(body_slopes(stage.frames)), kThreads, 0, stream>>>(stage);
}

}  // namespace being::training
