// The operation `tidy` on CUDA: a thread per Gaussian.
#include <cuda_runtime.h>

#include "kernels/training/tidy.h"

namespace being::training {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) tidy_kernel(const __grid_constant__ TidyStage<float> stage) {
    const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
    if (i < stage.count) tidy_gaussian(stage, size_t(i));
}

}  // namespace

void launch_tidy(const TidyStage<float>& stage, CUstream_st* stream) {
    const unsigned blocks = unsigned((stage.count + kThreads - 1) / kThreads);
    tidy_kernel<<<blocks, kThreads, 0, stream>>>(stage);
}

}  // namespace being::training
