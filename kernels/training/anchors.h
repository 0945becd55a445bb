// Contract of the operation `anchor_latents`: latents of M anchors in B frames, and their derivatives.
//
//     h0 = relu(W0 theta + b0)      h1 = relu(W1 h0 + b1)      of_frame = V0 [:, :H1] h1
//     of_anchor = V0 [:, H1:] code + c0                        Z = V1 relu(of_frame + of_anchor) + c1
//
// What the first layer after the trunk makes of a frame and what it makes of an anchor are sums apart, so that it is
// computed B + M times, not B M times.
#pragma once

#include <cstddef>

#include "kernels/common/real.h"

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

constexpr int kAnchorLayer = 512;      // inputs and hidden units at most
constexpr int kAnchorTile = 4;         // anchors that a block takes on the way back
constexpr int kAnchorFloats = 24'000;  // of shared memory at most, see anchor_floats
constexpr int anchor_tiles(int anchors) {
    return (anchors + kAnchorTile - 1) / kAnchorTile;
}

// Shared memory of the largest kernel: V1 and its gradient, hidden units and their slopes, slopes of latents.
constexpr int anchor_floats(int hidden2, int rank) {
    return 2 * rank * (hidden2 + 1) + kAnchorTile * (3 * hidden2 + rank);
}

template <class Real>
struct AnchorStage {
    int frames, anchors, inputs, hidden0, hidden1, code, hidden2, rank;
    const Real* condition;       // [B, inputs] theta
    const Real* trunk_weight_0;  // [H0, inputs]
    const Real* trunk_bias_0;    // [H0]
    const Real* trunk_weight_1;  // [H1, H0]
    const Real* trunk_bias_1;    // [H1]
    const Real* anchor_code;     // [M, C]
    const Real* head_weight_0;   // [H2, H1 + C]
    const Real* head_bias_0;     // [H2]
    const Real* head_weight_1;   // [K, H2]
    const Real* head_bias_1;     // [K]
    Real* first;                 // out [B, H0] h0
    Real* second;                // out [B, H1] h1
    Real* of_frame;              // out [B, H2]
    Real* of_anchor;             // out [M, H2]
    Real* latent;                // out [B, M, K]; not used on the way back

    BEING_HD Real hidden(int frame, int anchor, int j) const {
        return larger(Real(0), of_frame[size_t(frame) * hidden2 + j] + of_anchor[size_t(anchor) * hidden2 + j]);
    }
};

// Of everything that is wanted; null: it is not.
template <class Real>
struct AnchorGradientStage {
    AnchorStage<Real> forward;
    const Real* d_latent;  // [B, M, K]
    Real* share;           // [tiles, share_size()] scratch: by V1, by c1, by of_frame
    Real* d_of_anchor;     // [M, H2] scratch
    Real* d_of_frame;      // [B, H2] scratch
    Real* d_second;        // [B, H1] scratch, before the ReLU
    Real* d_first;         // [B, H0] scratch, before the ReLU
    Real* d_condition;
    Real* d_trunk_weight_0;
    Real* d_trunk_bias_0;
    Real* d_trunk_weight_1;
    Real* d_trunk_bias_1;
    Real* d_anchor_code;
    Real* d_head_weight_0;
    Real* d_head_bias_0;
    Real* d_head_weight_1;
    Real* d_head_bias_1;

    BEING_HD int share_size() const { return forward.rank * (forward.hidden2 + 1) + forward.frames * forward.hidden2; }
};

// CPU, float and double.
template <class Real>
void run_anchors(const AnchorStage<Real>& stage);
template <class Real>
void run_anchors_backward(const AnchorGradientStage<Real>& stage);

// CUDA.
void launch_anchors(const AnchorStage<float>& stage, CUstream_st* stream);
void launch_anchors_backward(const AnchorGradientStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
