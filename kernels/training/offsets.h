// The operation `blend_offsets`: offsets of n Gaussians, o_i = s B_i z_i with z_i = sum_a w_ia Z_k(i,a), for B frames,
// and what they cost: the mean of (p o)^2 over frames, Gaussians and channels. s and p are factors per channel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/real.h"
#include "kernels/config.h"

#if defined(__CUDACC__) || defined(BEING_CUDA)
#include <cuda_runtime_api.h>
#endif

namespace being::training {

constexpr int kAnchorsPerPoint = 4;
constexpr int kLargestRank = 64;

template <class Real>
struct OffsetsForward {
    const Real* latent;    // [B, M, K]
    const int32_t* index;  // [n, 4] of anchors
    const Real* weight;    // [n, 4]
    const Real* basis;     // [n, 13, K]
    const Real* scale;     // [13] s; null: 1
    const Real* penalty;   // [13] p; null: nothing is summed up, and the two below may be null
    Real* share;           // [n] scratch
    Real* cost;            // [1]
    Real* offsets;         // [B, n, 13]
    int frames, anchors, count, rank;
};

// The gradient of a latent gathers from all Gaussians of its anchor: in the order of `entries`, so that the sum is the
// same in every run. An entry 4 i + a says that the anchor is Gaussian i's a-th.
template <class Real>
struct OffsetsBackward {
    const Real* latent;
    const int32_t* index;
    const Real* weight;
    const Real* basis;
    const Real* scale;
    const Real* penalty;
    const Real* offsets;     // [B, n, 13] as they came out; read where there is a d_cost
    const Real* d_offsets;   // [B, n, 13] or null: 0
    const Real* d_cost;      // [1] or null: 0
    const int32_t* entries;  // [4 n] by anchor
    const int32_t* starts;   // [M + 1] first entry of every anchor
    Real* d_mixed;           // [n, B, K] scratch: dL/dz_i
    Real* partial;           // [M, slices, B, K] scratch
    Real* d_latent;          // [B, M, K] or null: not wanted; then the four above may be null too
    Real* d_basis;           // [n, 13, K] or null: not wanted
    int frames, anchors, count, rank;
    int slices;  // parts in which an anchor's entries are summed
};

template <class Real>
BEING_HD inline Real offset_cost(Real penalty, Real offset) {
    return penalty * penalty * offset * offset;
}

// By the offset; by_cost: the gradient of the sum of all costs.
template <class Real>
BEING_HD inline Real offset_cost_slope(Real penalty, Real offset, Real by_cost) {
    return Real(2) * by_cost * penalty * penalty * offset;
}

template <class Stage>
BEING_HD inline double offsets_in_all(const Stage& stage) {
    return double(stage.frames) * stage.count * config::kChannels;
}

template <class Real>
void run_offsets_forward(const OffsetsForward<Real>& stage);
template <class Real>
void run_offsets_backward(const OffsetsBackward<Real>& stage);

#if defined(__CUDACC__) || defined(BEING_CUDA)
// The rank is a multiple of 4, and all pointers are multiples of 16 bytes.
void launch_offsets_forward(const OffsetsForward<float>& stage, cudaStream_t stream);
void launch_offsets_backward(const OffsetsBackward<float>& stage, cudaStream_t stream);
#endif

}  // namespace being::training
