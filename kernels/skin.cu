// Stage `skin`: posed vertices in camera space; beside it, the latents of the offset network's anchors.
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
#include "kernels/device/overlap.cuh"

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

    wait_for_previous_kernel();
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

// A thread per anchor and four ranks.
__device__ void find_latents(const SkinStage& s, int block) {
    __shared__ uint32_t largest[64];
    const int quads = s.rank_stride / 4, place = block * kThreads + int(threadIdx.x);
    const int anchor = place / quads, quad = place % quads;
    if (threadIdx.x < 64) largest[threadIdx.x] = 0;
    __syncthreads();
    wait_for_previous_kernel();
    if (anchor < s.anchors) {
        const float* bias = s.anchor_bias + size_t(anchor / 16) * s.hidden * 16 + anchor % 16;
        const float4* weight = reinterpret_cast<const float4*>(s.head_weight) + quad;
        float4 z = reinterpret_cast<const float4*>(s.head_bias)[quad];
#pragma unroll 8
        for (int j = 0; j < s.hidden; ++j) {
            const float a = larger(__ldg(bias + j * 16) + s.state->shared[j], 0.0f);
            const float4 w = __ldg(weight + j * quads);
            z = {fused(a, w.x, z.x), fused(a, w.y, z.y), fused(a, w.z, z.z), fused(a, w.w, z.w)};
        }
        reinterpret_cast<float4*>(s.latent)[anchor * quads + quad] = z;
        // Bits of positive floats are ordered as they are.
        atomicMax(largest + quad * 4, __float_as_uint(fabsf(z.x)));
        atomicMax(largest + quad * 4 + 1, __float_as_uint(fabsf(z.y)));
        atomicMax(largest + quad * 4 + 2, __float_as_uint(fabsf(z.z)));
        atomicMax(largest + quad * 4 + 3, __float_as_uint(fabsf(z.w)));
    }
    __syncthreads();
    if (threadIdx.x < s.rank_stride) atomicMax(s.state->largest_latent + threadIdx.x, largest[threadIdx.x]);
}

__global__ void __launch_bounds__(kThreads) skin_kernel(const SkinStage* stages, int skin_blocks) {
    const SkinStage& s = stages[blockIdx.y];
    const int block = int(blockIdx.x);
    let_next_kernel_start();
    if (block >= skin_blocks)
        find_latents(s, block - skin_blocks);
    else if (block * kVertices < s.vertices)
        skin_vertices(s, block);
    else
        wait_for_previous_kernel();
    for (int i = block * kThreads + int(threadIdx.x); i < s.list_counts; i += int(gridDim.x) * kThreads)
        s.list_count[i] = 0;
}

}  // namespace

void launch_skin(const SkinStage* stages, int sessions, int most_vertices, int most_latents, bool overlap,
                 cudaStream_t stream) {
    const int skin_blocks = (most_vertices + kVertices - 1) / kVertices;
    const int network_blocks = (most_latents / 4 + kThreads - 1) / kThreads;
    const int blocks = skin_blocks + network_blocks > 0 ? skin_blocks + network_blocks : 1;
    launch(skin_kernel, dim3(unsigned(blocks), unsigned(sessions)), dim3(kThreads), 0, overlap, stream, stages,
           skin_blocks);
}

}  // namespace being::cuda
