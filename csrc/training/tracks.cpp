// The operations `correct_tracks`, `track_costs` and `gather_motion` on the CPU: timesteps, or knots, in parallel.
#include "kernels/training/tracks.h"

#include "csrc/training/parallel.h"

namespace being::training {
namespace {

constexpr int kGrain = 32;  // rows

// visit(column, its tensor) for all columns.
template <class Real, class Visit>
void for_columns(Real* const (&parts)[kTrackParts], const int (&begin)[kTrackParts + 1], const Visit& visit) {
    for (int c = 0; c < begin[kTrackParts]; ++c) visit(c, track_column(parts, begin, c));
}

}  // namespace

template <class Real>
void run_tracks(const TrackStage<Real>& s) {
    if (s.fit.starts)
        parallel_for(s.knots, kGrain, [&](int64_t k) {
            for_columns(s.correction, s.begin, [&](int c, const TrackColumn<const Real>& correction) {
                s.knot[size_t(k) * s.columns + c] = s.fit.times(int(k), 0, 1, [&](int t) { return correction[t]; });
            });
        });
    parallel_for(s.timesteps, kGrain, [&](int64_t t) {
        for_columns(s.correction, s.begin, [&](int c, const TrackColumn<const Real>& correction) {
            const size_t at = size_t(t) * s.columns + c;
            s.values[at] = s.given[at] + track_change(s, correction, int(t), c);
        });
    });
}

template <class Real>
void run_tracks_backward(const TrackGradientStage<Real>& s) {
    if (s.hats_t.starts)
        parallel_for(s.knots, kGrain, [&](int64_t k) {
            for (int c = 0; c < s.columns; ++c)
                s.d_knot[size_t(k) * s.columns + c] =
                    s.hats_t.times(int(k), 0, 1, [&](int t) { return track_slope(s, t, c); });
        });
    parallel_for(s.timesteps, kGrain, [&](int64_t t) {
        for_columns(s.d_correction, s.begin, [&](int c, const TrackColumn<Real>& slope) {
            if (slope.first) slope[int(t)] = track_correction_slope(s, int(t), c);
        });
    });
}

template <class Real>
void run_track_costs(const TrackCostStage<Real>& s) {
    parallel_for(s.timesteps, kGrain, [&](int64_t t) {
        Real closeness = 0, smoothness = 0;
        for (int c = 0; c < s.columns; ++c) {
            const Real change = track_change(s, int(t), c);
            const Real acceleration = t < s.triples ? track_acceleration(s, int(t), c) : Real(0);
            closeness += change * change;
            smoothness += acceleration * acceleration;
        }
        s.share[2 * t] = closeness;
        s.share[2 * t + 1] = smoothness;
    });
    for (int k = 0; k < 2; ++k) {
        double sum = 0;
        for (int t = 0; t < s.timesteps; ++t) sum += double(s.share[2 * t + k]);
        *s.cost[k] = Real(sum);
    }
}

template <class Real>
void run_track_costs_backward(const TrackCostStage<Real>& s) {
    parallel_for(s.timesteps, kGrain, [&](int64_t t) {
        for (int c = 0; c < s.columns; ++c) s.d_values[size_t(t) * s.columns + c] = track_cost_slope(s, int(t), c);
    });
}

template <class Real>
void run_motion(const MotionStage<Real>& s) {
    for (int frame = 0; frame < s.frames; ++frame)
        for (int c = 0; c < s.columns; ++c) gather_motion(s, frame, c);
}

template <class Real>
void run_motion_backward(const MotionStage<Real>& s) {
    parallel_for(s.timesteps, kGrain, [&](int64_t t) {
        for (int c = 0; c < s.columns; ++c) motion_gradient(s, int(t), c);
    });
}

template void run_tracks(const TrackStage<float>&);
template void run_tracks(const TrackStage<double>&);
template void run_tracks_backward(const TrackGradientStage<float>&);
template void run_tracks_backward(const TrackGradientStage<double>&);
template void run_track_costs(const TrackCostStage<float>&);
template void run_track_costs(const TrackCostStage<double>&);
template void run_track_costs_backward(const TrackCostStage<float>&);
template void run_track_costs_backward(const TrackCostStage<double>&);
template void run_motion(const MotionStage<float>&);
template void run_motion(const MotionStage<double>&);
template void run_motion_backward(const MotionStage<float>&);
template void run_motion_backward(const MotionStage<double>&);

}  // namespace being::training
