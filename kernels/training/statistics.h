// Contract of the operation `add_statistics`: what a batch says about which Gaussians are of use, added in place.
#pragma once

#include <cstddef>

#include "kernels/common/real.h"
#include "kernels/training/rasterize.h"

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

template <class Real>
struct StatisticsStage {
    const Real* splats;    // [B, N, 12]
    const Real* d_splats;  // [B, N, 12] dL/dsplats
    Real* gradient;        // [N] += sum over frames of |(half_x dL/dx, half_y dL/dy)|
    Real* seen;            // [N] += frames in which that is not 0
    Real* opacity;         // [N] the largest so far
    Real half_x, half_y;
    int frames, count;
};

template <class Real>
BEING_HD inline void add_statistics(const StatisticsStage<Real>& s, size_t i) {
    constexpr int kOpacity = 5;  // in a splat's row
    Real gradient = 0, seen = 0, opacity = s.opacity[i];
    for (int frame = 0; frame < s.frames; ++frame) {
        const size_t row = (size_t(frame) * s.count + i) * kSplatFloats;
        const Real x = s.half_x * s.d_splats[row], y = s.half_y * s.d_splats[row + 1];
        const Real length = root(fused(x, x, y * y));
        gradient += length;
        seen += length > Real(0.0f) ? Real(1.0f) : Real(0.0f);
        opacity = larger(opacity, s.splats[row + kOpacity]);
    }
    s.gradient[i] += gradient;
    s.seen[i] += seen;
    s.opacity[i] = opacity;
}

// CPU, float and double.
template <class Real>
void run_statistics(const StatisticsStage<Real>& stage);

// CUDA.
void launch_statistics(const StatisticsStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
