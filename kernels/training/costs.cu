// The operation `gaussian_costs` on CUDA: a thread per Gaussian, both ways, and one block that adds up. 44 bytes are
// read per Gaussian, and 28 written on the way back: what takes time is to launch it, which is why it is one operation.
#include <cuda_runtime.h>

#include "kernels/device/block_sum.cuh"
#include "kernels/training/costs.h"

namespace being::training {
namespace {

__global__ void __launch_bounds__(kCostGroup) cost_kernel(const __grid_constant__ CostStage<float> s) {
    const int i = int(blockIdx.x) * kCostGroup + int(threadIdx.x);
    CostSums<float> sums{};
    if (i < s.count) sums = costs_of(s, i);
    cuda::block_sum<kCostGroup>(sums.value);
    if (threadIdx.x > 0) return;
#pragma unroll
    for (int k = 0; k < kCosts; ++k) s.share[blockIdx.x * kCosts + k] = sums.value[k];
}

__global__ void __launch_bounds__(cuda::kShareThreads) cost_sum_kernel(const __grid_constant__ CostStage<float> s) {
    double sums[kCosts];
    cuda::add_shares(s.share, cost_groups(s.count), sums);
    if (threadIdx.x > 0) return;
#pragma unroll
    for (int k = 0; k < kCosts; ++k) *s.cost[k] = float(sums[k]) * cost_factor(s, k);
}

__global__ void __launch_bounds__(kCostGroup) cost_gradient_kernel(const __grid_constant__ CostStage<float> s) {
    const int i = int(blockIdx.x) * kCostGroup + int(threadIdx.x);
    if (i < s.count) write_cost_gradients(s, cost_slopes(s), i);
}

}  // namespace

void launch_costs(const CostStage<float>& stage, CUstream_st* stream) {
    cost_kernel<<<unsigned(cost_groups(stage.count)), kCostGroup, 0, stream>>>(stage);
    cost_sum_kernel<<<1, cuda::kShareThreads, 0, stream>>>(stage);
}

void launch_costs_backward(const CostStage<float>& stage, CUstream_st* stream) {
    cost_gradient_kernel<<<unsigned(cost_groups(stage.count)), kCostGroup, 0, stream>>>(stage);
}

}  // namespace being::training
