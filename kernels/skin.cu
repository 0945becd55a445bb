// Stage `skin`: posed vertices in camera space; beside it, the latents of the offset network's anchors, and what must
// be ready for `bin` and `rasterize`.
//
//   v = rest + sum_c coefficient_c basis_c;  v' = (sum_j w_j A_j) v     (Li et al. 2017, section 4)
//   Z_k = V1 relu(shared + bias_k) + c1 for each anchor k                (csrc/cpu/network.cpp)
//
// Eight threads share a vertex: 112 bytes of basis each, all of them asked for at once, before the pose is known; what
// is left afterwards are 54 products, three sums over eight lanes and the blend of five joints. 4.5 MB for 5,023
// vertices, which stay in the second-level cache.
#include <cuda_fp16.h>

#include "kernels/common/linear.h"
#include "kernels/cuda_stages.h"
#include "kernels/device/cost_class.cuh"
#include "kernels/device/launch.cuh"

namespace being::cuda {
namespace {

constexpr int kThreads = 256, kVertices = kThreads / kSkinLanes;

__device__ void skin_vertices(const SkinStage& s, int block) {
    const int t = int(threadIdx.x), lane = t % kSkinLanes, vertex = block * kVertices + t / kSkinLanes;
    const bool inside = vertex < s.vertices;
    const int row = inside ? vertex : s.vertices - 1;

    union {
        uint4 chunk[kSkinChunks];
        __half2 pair[kSkinChunks * 4];
    } basis;
    const uint4* from = s.basis + size_t(row / 4) * kSkinChunks * kWarp + row % 4 * kSkinLanes + lane;
#pragma unroll
    for (int q = 0; q < kSkinChunks; ++q) basis.chunk[q] = __ldg(from + q * kWarp);
    const float4 rest = __ldg(s.rest + row);
    const float weight = __ldg(s.weights + row * kSkinLanes + lane);

    const FrameState& state = *s.state;
    float sum[3] = {0, 0, 0};
    const float* coefficient = state.coefficient + lane * kSkinColumnsPerLane;
#pragma unroll
    for (int i = 0; i < kSkinColumnsPerLane; i += 2) {  // two columns, three axes: three pairs
        const float c0 = coefficient[i], c1 = coefficient[i + 1];
        const float2 p0 = __half22float2(basis.pair[i / 2 * 3]), p1 = __half22float2(basis.pair[i / 2 * 3 + 1]),
                     p2 = __half22float2(basis.pair[i / 2 * 3 + 2]);
        sum[0] = fused(c0, p0.x, fused(c1, p1.y, sum[0]));
        sum[1] = fused(c0, p0.y, fused(c1, p2.x, sum[1]));
        sum[2] = fused(c0, p1.x, fused(c1, p2.y, sum[2]));
    }
#pragma unroll
    for (int offset = 1; offset < kSkinLanes; offset *= 2)
#pragma unroll
        for (float& axis : sum) axis += __shfl_xor_sync(~0u, axis, offset);
    const Vector3<float> shaped{rest.x + sum[0], rest.y + sum[1], rest.z + sum[2]};

    // Lane j moves the vertex with joint j.
    Vector3<float> moved{0, 0, 0};
    if (lane < config::kJoints) moved = transform(state.joint[lane], shaped) * weight;
#pragma unroll
    for (int offset = 1; offset < kSkinLanes; offset *= 2) {
        moved.x += __shfl_xor_sync(~0u, moved.x, offset);
        moved.y += __shfl_xor_sync(~0u, moved.y, offset);
        moved.z += __shfl_xor_sync(~0u, moved.z, offset);
    }
    if (inside && lane == 0) s.posed[vertex] = {moved.x, moved.y, moved.z, 0.0f};
}

// Sixteen anchors, a thread per anchor and four ranks; then what these anchors add to the colour match.
__device__ void find_latents(const SkinStage& s, int sixteen) {
    extern __shared__ float4
        staged[];  // [hidden][quads] weights, [16][quads] latents, [hidden][16] bias, [hidden] shared
    const unsigned quads = unsigned(s.rank) / 4, t = threadIdx.x, quad = t / 16, lane = t % 16;
    const bool inside = quad < quads;
    float4* latents = staged + s.hidden * quads;
    auto* bias = reinterpret_cast<float*>(latents + 16 * quads);
    float* shared = bias + s.hidden * 16;
    for (unsigned i = t; i < s.hidden * quads; i += kThreads)
        staged[i] = __ldg(reinterpret_cast<const float4*>(s.head_weight) + i);
    for (unsigned i = t; i < s.hidden * 16u; i += kThreads)
        bias[i] = __ldg(s.anchor_bias + size_t(sixteen) * s.hidden * 16 + i);
    float4 z = __ldg(reinterpret_cast<const float4*>(s.head_bias) + (inside ? quad : 0));
    const bool matched = __ldg(s.match_used + sixteen);
    if (t < s.hidden) shared[t] = s.state->shared[t];
    __syncthreads();
    if (inside) {
#pragma unroll 8
        for (int j = 0; j < s.hidden; ++j) {
            const float a = larger(bias[j * 16 + lane] + shared[j], 0.0f);
            const float4 w = staged[j * quads + quad];
            z = {fused(a, w.x, z.x), fused(a, w.y, z.y), fused(a, w.z, z.z), fused(a, w.w, z.w)};
        }
        reinterpret_cast<float4*>(s.latent)[(sixteen * 16 + lane) * quads + quad] = z;
        latents[lane * quads + quad] = z;
    }
    float largest[4] = {fabsf(z.x), fabsf(z.y), fabsf(z.z), fabsf(z.w)};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int offset = 8; offset > 0; offset /= 2)
            largest[k] = larger(largest[k], __shfl_xor_sync(~0u, largest[k], offset));
        // Bits of positive floats are ordered as they are.
        if (inside && lane == 0) atomicMax(s.state->largest_latent + quad * 4 + k, __float_as_uint(largest[k]));
    }
    if (!matched) {
        if (t < kMatchValues) s.match[sixteen * kMatchValues + t] = 0;
        return;
    }
    constexpr unsigned kSlices = kThreads / kMatchValues;
    __shared__ float partial[kSlices][kMatchValues];
    const unsigned slice = t / kMatchValues, value = t % kMatchValues, terms = 16 * unsigned(s.rank);
    __syncthreads();
    if (slice < kSlices) {
        const float* coefficient = s.match_coefficient + size_t(sixteen) * terms * kMatchValues + value;
        const auto* latent = reinterpret_cast<const float*>(latents);
        float sum = 0;
#pragma unroll 8
        for (unsigned term = slice; term < terms; term += kSlices)
            sum = fused(latent[term], __ldg(coefficient + term * kMatchValues), sum);
        partial[slice][value] = sum;
    }
    __syncthreads();
    if (t < kMatchValues) {
        float sum = 0;
        for (unsigned i = 0; i < kSlices; ++i) sum += partial[i][t];
        s.match[sixteen * kMatchValues + t] = sum;
    }
}

template <bool kOne>
__global__ void __launch_bounds__(kThreads)
    skin_kernel(const __grid_constant__ Sessions<SkinStage> sessions, int network_blocks) {
    const SkinStage s = stage_of<kOne>(sessions, blockIdx.y);
    const int block = int(blockIdx.x), skin_block = block - network_blocks;
    // The network's blocks first: they take longest.
    if (block < network_blocks && block * 16 < s.anchors)
        find_latents(s, block);
    else if (skin_block >= 0 && skin_block * kVertices < s.vertices)
        skin_vertices(s, skin_block);
    const int all_threads = int(gridDim.x) * kThreads, first = block * kThreads + int(threadIdx.x);
    for (int i = first; i < s.lists; i += all_threads) s.list_count[i] = 0;
    for (int i = first; i - int(threadIdx.x % kWarp) < s.blocks; i += all_threads)
        take_place(s.state->class_count, i < s.blocks ? cost_class(s.cost[i]) : 0, i < s.blocks, threadIdx.x % kWarp);
}

}  // namespace

void launch_skin(const StageArray<SkinStage>& stages, int most_vertices, cudaStream_t stream) {
    int network_blocks = 0;
    size_t staged = 0;
    for (int i = 0; i < stages.count; ++i) {
        const SkinStage& s = stages.host[i];
        if (s.anchors == 0) continue;
        const size_t bytes = (size_t(s.hidden + 16) * s.rank + size_t(s.hidden) * 17) * sizeof(float);
        network_blocks = s.anchors / 16 > network_blocks ? s.anchors / 16 : network_blocks;
        staged = bytes > staged ? bytes : staged;
    }
    const int skin_blocks = (most_vertices + kVertices - 1) / kVertices;
    const int blocks = network_blocks + skin_blocks > 0 ? network_blocks + skin_blocks : 1;
    const auto kernel = stages.count == 1 ? skin_kernel<true> : skin_kernel<false>;
    constexpr int kLargestStaged = ((256 + 16) * 64 + 256 * 17) * int(sizeof(float));
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kLargestStaged);
    const dim3 grid{unsigned(blocks), unsigned(stages.count)};
    kernel<<<grid, kThreads, staged, stream>>>(Sessions<SkinStage>{stages.host[0], stages.device}, network_blocks);
}

}  // namespace being::cuda
