// The operation `blend_offsets` on the CPU: Gaussians in parallel; for the latents' gradient, anchors in parallel.
#include "kernels/training/offsets.h"

#include <algorithm>

#include "csrc/training/parallel.h"

namespace being::training {
namespace {

constexpr int kChannels = config::kChannels, kGrain = 128;

// z_i of a frame.
template <class Stage, class Real>
void mix(const Stage& s, int64_t i, int frame, Real* mixed) {
    std::fill_n(mixed, s.rank, Real(0));
    for (int a = 0; a < kAnchorsPerPoint; ++a) {
        const Real weight = s.weight[kAnchorsPerPoint * i + a];
        const Real* latent = s.latent + (size_t(frame) * s.anchors + s.index[kAnchorsPerPoint * i + a]) * s.rank;
        for (int k = 0; k < s.rank; ++k) mixed[k] += weight * latent[k];
    }
}

// dL/d(B z) of a Gaussian in a frame.
template <class Real>
void slopes(const OffsetsBackward<Real>& s, int64_t i, int frame, Real by_cost, Real* slope) {
    const size_t row = (size_t(frame) * s.count + i) * kChannels;
    for (int c = 0; c < kChannels; ++c) {
        slope[c] = s.d_offsets ? s.d_offsets[row + c] : Real(0);
        if (s.d_cost) slope[c] += offset_cost_slope(s.penalty[c], s.offsets[row + c], by_cost);
        if (s.scale) slope[c] *= s.scale[c];
    }
}

template <class Real>
void point_gradient(const OffsetsBackward<Real>& s, int64_t i) {
    const Real* const basis = s.basis + i * kChannels * s.rank;
    Real* const d_basis = s.d_basis ? s.d_basis + i * kChannels * s.rank : nullptr;
    const Real by_cost = s.d_cost ? Real(*s.d_cost / offsets_in_all(s)) : Real(0);
    if (d_basis) std::fill_n(d_basis, kChannels * s.rank, Real(0));
    for (int frame = 0; frame < s.frames; ++frame) {
        Real d[kChannels];
        slopes(s, i, frame, by_cost, d);
        if (d_basis) {
            Real mixed[kLargestRank];
            mix(s, i, frame, mixed);
            for (int c = 0; c < kChannels; ++c)
                for (int k = 0; k < s.rank; ++k) d_basis[c * s.rank + k] += d[c] * mixed[k];
        }
        if (s.d_latent) {
            Real* const d_mixed = s.d_mixed + (size_t(i) * s.frames + frame) * s.rank;
            std::fill_n(d_mixed, s.rank, Real(0));
            for (int c = 0; c < kChannels; ++c)
                for (int k = 0; k < s.rank; ++k) d_mixed[k] += d[c] * basis[c * s.rank + k];
        }
    }
}

template <class Real>
void anchor_gradient(const OffsetsBackward<Real>& s, int anchor) {
    for (int frame = 0; frame < s.frames; ++frame) {
        Real* const to = s.d_latent + (size_t(frame) * s.anchors + anchor) * s.rank;
        std::fill_n(to, s.rank, Real(0));
        for (int at = s.starts[anchor]; at < s.starts[anchor + 1]; ++at) {
            const int entry = s.entries[at];
            const Real weight = s.weight[entry];
            const Real* from = s.d_mixed + (size_t(entry / kAnchorsPerPoint) * s.frames + frame) * s.rank;
            for (int k = 0; k < s.rank; ++k) to[k] += weight * from[k];
        }
    }
}

}  // namespace

template <class Real>
void run_offsets_forward(const OffsetsForward<Real>& s) {
    parallel_for(s.count, kGrain, [&](int64_t i) {
        const Real* const basis = s.basis + i * kChannels * s.rank;
        Real cost = 0;
        for (int frame = 0; frame < s.frames; ++frame) {
            Real mixed[kLargestRank];
            mix(s, i, frame, mixed);
            Real* const out = s.offsets + (size_t(frame) * s.count + i) * kChannels;
            for (int c = 0; c < kChannels; ++c) {
                Real sum[4] = {};  // the rank is a multiple of 4
                for (int k = 0; k < s.rank; k += 4)
                    for (int j = 0; j < 4; ++j) sum[j] += basis[c * s.rank + k + j] * mixed[k + j];
                out[c] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
                if (s.scale) out[c] *= s.scale[c];
                if (s.penalty) cost += offset_cost(s.penalty[c], out[c]);
            }
        }
        if (s.penalty) s.share[i] = cost;
    });
    if (!s.penalty) return;
    double sum = 0;
    for (int i = 0; i < s.count; ++i) sum += s.share[i];
    *s.cost = Real(sum / offsets_in_all(s));
}

template <class Real>
void run_offsets_backward(const OffsetsBackward<Real>& s) {
    parallel_for(s.count, kGrain, [&](int64_t i) { point_gradient(s, i); });
    if (s.d_latent) parallel_for(s.anchors, 1, [&](int64_t anchor) { anchor_gradient(s, int(anchor)); });
}

template void run_offsets_forward(const OffsetsForward<float>&);
template void run_offsets_forward(const OffsetsForward<double>&);
template void run_offsets_backward(const OffsetsBackward<float>&);
template void run_offsets_backward(const OffsetsBackward<double>&);

}  // namespace being::training
