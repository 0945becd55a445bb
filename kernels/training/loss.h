// Contract of the operation `photometric_loss`: how far a batch of pictures is from what was seen, and the gradient by
// the pictures. The formulas are in kernels/common/photometric.h and ssim.h.
#pragma once

#include <cstdint>

#include "kernels/training/background.h"

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

constexpr int kLossTile = 32;  // px a side; the sums of a tile are added up in one order, then those of all tiles

// Numbers per pixel and channel that SSIM's gradient needs. CPU: derivatives by the window's mean, square and product
// (Ssim, ssim.h). CUDA: the first; the other two as half floats in one word. Behind them CUDA has a number per tile: 1
// where the picture equals the target wherever the tile's windows see, so that nothing is kept of it; else 0.
constexpr int kSsimKept = 3, kSsimKeptOnCuda = 2;

// B pictures of one size. What is written is fully written.
template <class Real>
struct LossStage {
    int pictures, height, width;
    Real per_pixel;         // 1 / (B H W)
    const Real* picture;    // [B][H][W][4]
    const uint8_t* target;  // [B][H][W][4], straight alpha
    const uint8_t* weight;  // [B][H][W] sixteenths, or null: all are 1
    Background<Real> background;
    Real l1, dssim, alpha;  // factors of the terms in the total
    bool ssim;              // whether D-SSIM is computed
    Real huber;             // 0: absolute differences
    Real tolerance;         // of coverage, in parts of the coverage seen
    Real* kept;     // [B][3][H][W][kSsimKept] with SSIM: out of forward, or null; in of backward; CUDA: see above
    Real* partial;  // [tiles of all pictures][3] scratch of forward
    Real* losses;   // [4] out of forward: total, L1, D-SSIM, alpha

    const Real* losses_gradient;  // [4] in of backward
    Real* picture_gradient;       // [B][H][W][4] out of backward

    BEING_HD Real weight_of(int64_t pixel) const { return weight ? Real(weight[pixel]) * Real(1.0 / 16.0) : Real(1); }
    BEING_HD int64_t kept_index(int picture, int channel, int y, int x) const {
        return ((int64_t(picture) * 3 + channel) * height + y) * width + x;
    }
    BEING_HD Real* equal_tiles() const { return kept + kept_index(pictures, 0, 0, 0) * kSsimKeptOnCuda; }
};

// Sums over pixels, and over channels but for alpha.
template <class Real>
struct LossSums {
    Real l1, dssim, alpha;
};

template <class Real>
BEING_HD inline void write_losses(const LossStage<Real>& stage, const LossSums<double>& sums) {
    const double per_value = double(stage.per_pixel) / 3;
    const Real l1 = Real(sums.l1 * per_value), dssim = Real(sums.dssim * per_value),
               alpha = Real(sums.alpha * double(stage.per_pixel));
    stage.losses[0] = stage.l1 * l1 + stage.dssim * dssim + stage.alpha * alpha;
    stage.losses[1] = l1;
    stage.losses[2] = dssim;
    stage.losses[3] = alpha;
}

// What a sum's gradient is multiplied by: the total's gradient, and that of the term on its own.
template <class Real>
BEING_HD inline LossSums<Real> loss_scales(const LossStage<Real>& stage) {
    const Real* g = stage.losses_gradient;
    const Real per_value = stage.per_pixel / Real(3);
    return {(g[0] * stage.l1 + g[1]) * per_value, (g[0] * stage.dssim + g[2]) * per_value,
            (g[0] * stage.alpha + g[3]) * stage.per_pixel};
}

// CPU, float and double.
template <class Real>
void run_loss(const LossStage<Real>& stage);
template <class Real>
void run_loss_backward(const LossStage<Real>& stage);

// CUDA.
void launch_loss(const LossStage<float>& stage, CUstream_st* stream);
void launch_loss_backward(const LossStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
