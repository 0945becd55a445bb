// Contract of the operation `rasterize`: splats to the sums that blending leaves in each pixel, and back. The formulas
// are in kernels/common/blend.h.
#pragma once

#include <cstdint>

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

constexpr int kSplatFloats = 12;  // x, y, conic a, b, c, opacity, red, green, blue, depth, 0, 0
constexpr int kSumFloats = 5;     // red, green, blue, alpha, weighted depth

// B frames of N splats each, on pictures of one size. What is written is fully written.
template <class Real>
struct RasterizeStage {
    int frames, splats_per_frame, width, height;
    Real stop;                  // a pixel takes no further splat once its transmittance is below; 0: never
    const Real* splats;         // [B][N][12], in any order; equal depths keep theirs
    Real* sums;                 // [B][H][W][5], out of forward, in of backward
    const Real* sums_gradient;  // [B][H][W][5], in of backward
    Real* splats_gradient;      // [B][N][12], out of backward

    // CUDA only; the CPU takes what it needs.
    int64_t capacity;  // instances (a splat in a tile) that `scratch` has room for
    int32_t* scratch;  // its layout is kernels/training/rasterize.cu's
};

// CPU, float and double.
template <class Real>
void run_rasterize(const RasterizeStage<Real>& stage);
template <class Real>
void run_rasterize_backward(const RasterizeStage<Real>& stage);

// CUDA.
void launch_rasterize(const RasterizeStage<float>& stage, CUstream_st* stream);
void launch_rasterize_backward(const RasterizeStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
