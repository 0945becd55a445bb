// Contracts of the operations `correct_tracks`, which adds corrections to the motion of T timesteps, `track_costs`,
// which says what those cost, and `gather_motion`, which takes a batch's rows out of the motion. A motion has C
// columns, those of its parameters one after the other.
//
//     values = given + m (x - H A x)
//     closeness = sum (p (values - given))^2      smoothness = sum (q acceleration)^2
//
// x are the corrections that are trained, m which timesteps are shown; A and H take out what is slow, by way of K
// knots; the acceleration is a weighted sum of three shown timesteps in a row; p and q are factors per column.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/real.h"

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

constexpr int kTrackParts = 7;  // parameters of a motion: expression, rotation, neck, jaw, eyes, translation, eyelids
constexpr int kTrackColumns = 128;  // at most
constexpr int kMotionParts = 4;     // that a batch takes: expression, all rotations, translation, eyelids

// A matrix of which most is 0: the entries of row i are those from starts[i] to starts[i + 1].
template <class Real>
struct SparseRows {
    const int32_t* starts;  // [rows + 1]; null: there is no matrix
    const int32_t* column;
    const Real* weight;

    // Of every `step`th entry from `first` on: the sum of weight times source(column).
    template <class Source>
    BEING_HD Real times(int row, int first, int step, const Source& source) const {
        Real sum = 0;
        const int end = starts[row + 1];
        for (int k = starts[row] + first; k < end; k += step) sum = fused(weight[k], source(column[k]), sum);
        return sum;
    }
};

// A column of a motion whose parameters are tensors of their own.
template <class Real>
struct TrackColumn {
    Real* first;  // null: not there
    int stride;
    BEING_HD Real& operator[](int t) const { return first[size_t(t) * stride]; }
};

template <class Real>
BEING_HD inline TrackColumn<Real> track_column(Real* const (&parts)[kTrackParts], const int (&begin)[kTrackParts + 1],
                                               int column) {
    int part = 0;
    while (part < kTrackParts - 1 && begin[part + 1] <= column) ++part;
    return {parts[part] ? parts[part] + (column - begin[part]) : nullptr, begin[part + 1] - begin[part]};
}

template <class Real>
struct TrackStage {
    const Real* correction[kTrackParts];  // x: [T, width] each
    int begin[kTrackParts + 1];           // first column of each, and C
    const Real* given;                    // [T, C]
    const Real* shown;                    // [T] m
    SparseRows<Real> fit, hats;           // A [K, T] and H [T, K]; or neither
    int timesteps, columns, knots;
    Real* knot;    // [K, C] scratch
    Real* values;  // out [T, C]
};

// x - H A x, where it is shown. `knot` is A x.
template <class Real>
BEING_HD inline Real track_change(const TrackStage<Real>& s, const TrackColumn<const Real>& correction, int t, int c) {
    Real value = correction[t];
    if (s.hats.starts) value -= s.hats.times(t, 0, 1, [&](int k) { return s.knot[size_t(k) * s.columns + c]; });
    return s.shown[t] * value;
}

template <class Real>
struct TrackGradientStage {
    int begin[kTrackParts + 1];
    const Real* shown;
    SparseRows<Real> fit_t, hats_t;  // transposed
    const Real* d_values;            // [T, C]
    int timesteps, columns, knots;
    Real* d_knot;                     // [K, C] scratch
    Real* d_correction[kTrackParts];  // out [T, width] each; null: not wanted
};

template <class Real>
BEING_HD inline Real track_slope(const TrackGradientStage<Real>& s, int t, int c) {
    return s.shown[t] * s.d_values[size_t(t) * s.columns + c];
}

// By x. `d_knot` is H^T of the slopes.
template <class Real>
BEING_HD inline Real track_correction_slope(const TrackGradientStage<Real>& s, int t, int c) {
    const Real slope = track_slope(s, t, c);
    if (!s.fit_t.starts) return slope;
    return slope - s.fit_t.times(t, 0, 1, [&](int k) { return s.d_knot[size_t(k) * s.columns + c]; });
}

template <class Real>
struct TrackCostStage {
    const Real* values;        // [T, C]
    const Real* given;         // [T, C]
    const int32_t* times;      // [triples + 2] timesteps that are shown, sorted
    const int32_t* place;      // [T] of a timestep among them, or -1
    const Real* acceleration;  // [triples, 3]
    const Real* closeness;     // [C] p
    const Real* smoothness;    // [C] q
    int timesteps, columns, triples;
    Real* share;            // [T, 2] scratch forwards
    Real* cost[2];          // out [1] each forwards: closeness, smoothness
    const Real* d_cost[2];  // [1] each on the way back, or null: 0
    Real* d_values;         // out [T, C] on the way back
};

template <class Real>
BEING_HD inline Real track_change(const TrackCostStage<Real>& s, int t, int c) {
    const size_t at = size_t(t) * s.columns + c;
    return s.closeness[c] * (s.values[at] - s.given[at]);
}

template <class Real>
BEING_HD inline Real track_acceleration(const TrackCostStage<Real>& s, int triple, int c) {
    Real sum = 0;
    for (int j = 0; j < 3; ++j)
        sum = fused(s.acceleration[3 * triple + j], s.values[size_t(s.times[triple + j]) * s.columns + c], sum);
    return s.smoothness[c] * sum;
}

template <class Real>
BEING_HD inline Real track_cost_slope(const TrackCostStage<Real>& s, int t, int c) {
    Real slope = 0;
    if (s.d_cost[0]) slope = Real(2) * *s.d_cost[0] * s.closeness[c] * track_change(s, t, c);
    if (!s.d_cost[1] || s.place[t] < 0) return slope;
    Real sum = 0;
    for (int j = 0; j < 3; ++j) {
        const int triple = s.place[t] - j;
        if (triple >= 0 && triple < s.triples)
            sum = fused(s.acceleration[3 * triple + j], track_acceleration(s, triple, c), sum);
    }
    return fused(Real(2) * *s.d_cost[1] * s.smoothness[c], sum, slope);
}

// Rows of a batch. On the way back a timestep adds up what its frames say, in their order.
template <class Real>
struct MotionStage {
    const Real* values;        // [T, C]; null on the way back
    const int64_t* timestep;   // [B]
    Real* part[kMotionParts];  // [B, width] each, out forwards; in on the way back, null: 0
    int begin[kMotionParts + 1];
    int frames, timesteps, columns;
    Real* d_values;  // out [T, C] on the way back
};

template <class Real>
BEING_HD inline Real* motion_value(const MotionStage<Real>& s, int frame, int column) {
    int part = 0;
    while (part < kMotionParts - 1 && s.begin[part + 1] <= column) ++part;
    const int width = s.begin[part + 1] - s.begin[part];
    return s.part[part] ? s.part[part] + size_t(frame) * width + (column - s.begin[part]) : nullptr;
}

template <class Real>
BEING_HD inline void gather_motion(const MotionStage<Real>& s, int frame, int column) {
    *motion_value(s, frame, column) = s.values[size_t(s.timestep[frame]) * s.columns + column];
}

template <class Real>
BEING_HD inline void motion_gradient(const MotionStage<Real>& s, int t, int column) {
    Real sum = 0;
    for (int frame = 0; frame < s.frames; ++frame)
        if (s.timestep[frame] == t)
            if (const Real* slope = motion_value(s, frame, column)) sum += *slope;
    s.d_values[size_t(t) * s.columns + column] = sum;
}

// CPU, float and double.
template <class Real>
void run_tracks(const TrackStage<Real>& stage);
template <class Real>
void run_tracks_backward(const TrackGradientStage<Real>& stage);
template <class Real>
void run_track_costs(const TrackCostStage<Real>& stage);
template <class Real>
void run_track_costs_backward(const TrackCostStage<Real>& stage);
template <class Real>
void run_motion(const MotionStage<Real>& stage);
template <class Real>
void run_motion_backward(const MotionStage<Real>& stage);

// CUDA.
void launch_tracks(const TrackStage<float>& stage, CUstream_st* stream);
void launch_tracks_backward(const TrackGradientStage<float>& stage, CUstream_st* stream);
void launch_track_costs(const TrackCostStage<float>& stage, CUstream_st* stream);
void launch_track_costs_backward(const TrackCostStage<float>& stage, CUstream_st* stream);
void launch_motion(const MotionStage<float>& stage, CUstream_st* stream);
void launch_motion_backward(const MotionStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
