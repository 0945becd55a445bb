// The operation `add_statistics` on CUDA: a thread per Gaussian goes through the frames. Of the 48 bytes of a splat and
// of its gradient one sector of 32 each is read.
#include <cuda_runtime.h>

#include "kernels/training/statistics.h"

namespace being::training {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) statistics_kernel(const __grid_constant__ StatisticsStage<float> stage) {
    const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
    if (i < stage.count) add_statistics(stage, size_t(i));
}

}  // namespace

void launch_statistics(const StatisticsStage<float>& stage, CUstream_st* stream) {
    const unsigned blocks = unsigned((stage.count + kThreads - 1) / kThreads);
    statistics_kernel<<<blocks, kThreads, 0, stream>>>(stage);
}

}  // namespace being::training
