// Contract of the operation `tidy`: what is done to the Gaussians of a layer after each step, in place.
#pragma once

#include <cstddef>

#include "kernels/training/records.h"

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

template <class Real>
struct TidyStage {
    Real* rotation;       // [N, 4] of unit length afterwards; this and the others: null leaves it out
    Real* colour;         // [N, 3] 0 .. 1 afterwards
    Real* opacity_logit;  // [N] within +- largest_logit
    Real* log_scale;      // [N, 3] within the limits below
    Real* position;       // [N, 3] of which x and y stay within `reach` of `home`
    const Real* home;     // [N, 3]; null where `position` is
    Real largest_logit, least_log_scale, largest_log_scale, reach;
    int count;
};

// Unlike `clamp`, leaves NaN what it is: a run that diverges must show it.
template <class Real>
BEING_HD inline Real brought_within(Real x, Real low, Real high) {
    return x < low ? low : x > high ? high : x;
}

template <class Real>
BEING_HD inline void tidy_gaussian(const TidyStage<Real>& s, size_t i) {
    if (s.rotation) {
        Real* q = s.rotation + 4 * i;
        const Real length = root(fused(q[0], q[0], fused(q[1], q[1], fused(q[2], q[2], q[3] * q[3]))));
        const Real scale = Real(1.0f) / larger(Real(1e-12f), length);
        for (int k = 0; k < 4; ++k) q[k] *= scale;
    }
    if (s.colour)
        for (int k = 0; k < 3; ++k) s.colour[3 * i + k] = brought_within(s.colour[3 * i + k], Real(0), Real(1));
    if (s.opacity_logit) s.opacity_logit[i] = brought_within(s.opacity_logit[i], -s.largest_logit, s.largest_logit);
    if (s.log_scale)
        for (int k = 0; k < 3; ++k)
            s.log_scale[3 * i + k] = brought_within(s.log_scale[3 * i + k], s.least_log_scale, s.largest_log_scale);
    if (s.position)
        for (int k = 0; k < 2; ++k) {
            Real& x = s.position[3 * i + k];
            const Real home = s.home[3 * i + k];
            x = brought_within(x, home - s.reach, home + s.reach);
        }
}

// CPU, float and double.
template <class Real>
void run_tidy(const TidyStage<Real>& stage);

// CUDA.
void launch_tidy(const TidyStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
