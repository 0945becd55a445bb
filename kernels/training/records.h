// How records lie in rows of tensors.
#pragma once

#include "kernels/common/splat.h"

namespace being::training {

constexpr int kOffsetFloats = 13;  // position, turn, log scale, opacity logit, colour
constexpr int kBoundFloats = 16;   // mean, factor (row by row), opacity, colour
constexpr int kPinholeFloats = 6;  // fx, fy, cx, cy, limit x, limit y; its pose is a tensor of its own

template <class Real>
BEING_HD inline Vector3<Real> read3(const Real* p) {
    return {p[0], p[1], p[2]};
}

template <class Real>
BEING_HD inline void write3(const Vector3<Real>& v, Real* p) {
    p[0] = v.x, p[1] = v.y, p[2] = v.z;
}

template <class Real>
BEING_HD inline GaussianOffsets<Real> read_offsets(const Real* p) {
    return {read3(p), read3(p + 3), read3(p + 6), p[9], read3(p + 10)};
}

template <class Real>
BEING_HD inline void write_offsets(const GaussianOffsets<Real>& offsets, Real* p) {
    write3(offsets.position, p);
    write3(offsets.turn, p + 3);
    write3(offsets.log_scale, p + 6);
    p[9] = offsets.opacity_logit;
    write3(offsets.colour, p + 10);
}

template <class Real>
BEING_HD inline BoundGaussian<Real> read_bound(const Real* p) {
    return {read3(p), matrix_of_rows(p + 3), p[12], read3(p + 13)};
}

template <class Real>
BEING_HD inline void write_bound(const BoundGaussian<Real>& bound, Real* p) {
    write3(bound.mean, p);
    write_rows(bound.factor, p + 3);
    p[12] = bound.opacity;
    write3(bound.colour, p + 13);
}

template <class Real>
BEING_HD inline Pinhole<Real> read_pinhole(const Real* pose, const Real* p) {
    return {frame_of_rows(pose), p[0], p[1], p[2], p[3], p[4], p[5]};
}

// A splat's row is kSplatFloats long (rasterize.h); its last two numbers are not used.
template <class Real>
BEING_HD inline Splat<Real> read_splat(const Real* p) {
    return {p[0], p[1], p[2], p[3], p[4], p[5], read3(p + 6), p[9]};
}

template <class Real>
BEING_HD inline void write_splat(const Splat<Real>& splat, Real* p) {
    p[0] = splat.x, p[1] = splat.y;
    p[2] = splat.a, p[3] = splat.b, p[4] = splat.c;
    p[5] = splat.opacity;
    write3(splat.colour, p + 6);
    p[9] = splat.depth;
    p[10] = p[11] = Real(0.0f);
}

}  // namespace being::training
