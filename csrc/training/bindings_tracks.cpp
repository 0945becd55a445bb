#include <string>

#include "csrc/training/bindings.h"
#include "kernels/training/tracks.h"

namespace being::training {
namespace {

// Pointers of which there are several, as `name_0`, `name_1`, ...
template <class Real, int kParts>
void take_pointers(const Arguments& a, const std::string& name, Real* (&parts)[kParts]) {
    for (int k = 0; k < kParts; ++k) parts[k] = a.pointer<Real>((name + "_" + std::to_string(k)).c_str());
}

template <int kParts>
void take_widths(const Arguments& a, int (&begin)[kParts + 1]) {
    begin[0] = 0;
    for (int k = 0; k < kParts; ++k) begin[k + 1] = begin[k] + a.integer(("width_" + std::to_string(k)).c_str());
}

template <class Real>
SparseRows<Real> sparse_rows(const Arguments& a, const std::string& name) {
    return {a.pointer<int32_t>((name + "_starts").c_str()), a.pointer<int32_t>((name + "_columns").c_str()),
            a.pointer<Real>((name + "_weights").c_str())};
}

template <class Real>
TrackStage<Real> tracks(const Arguments& a) {
    TrackStage<Real> s{};
    take_pointers(a, "correction", s.correction);
    take_widths<kTrackParts>(a, s.begin);
    s.given = a.pointer<Real>("given");
    s.shown = a.pointer<Real>("shown");
    s.fit = sparse_rows<Real>(a, "fit");
    s.hats = sparse_rows<Real>(a, "hats");
    s.timesteps = a.integer("timesteps");
    s.columns = a.integer("columns");
    s.knots = a.integer("knots");
    s.knot = a.pointer<Real>("knot");
    s.values = a.pointer<Real>("values");
    return s;
}

template <class Real>
TrackGradientStage<Real> tracks_gradient(const Arguments& a) {
    TrackGradientStage<Real> s{};
    take_widths<kTrackParts>(a, s.begin);
    s.shown = a.pointer<Real>("shown");
    s.fit_t = sparse_rows<Real>(a, "fit_transposed");
    s.hats_t = sparse_rows<Real>(a, "hats_transposed");
    s.d_values = a.pointer<Real>("d_values");
    s.timesteps = a.integer("timesteps");
    s.columns = a.integer("columns");
    s.knots = a.integer("knots");
    s.d_knot = a.pointer<Real>("d_knot");
    take_pointers(a, "d_correction", s.d_correction);
    return s;
}

template <class Real>
TrackCostStage<Real> track_costs(const Arguments& a) {
    return {a.pointer<Real>("values"),
            a.pointer<Real>("given"),
            a.pointer<int32_t>("times"),
            a.pointer<int32_t>("place"),
            a.pointer<Real>("acceleration"),
            a.pointer<Real>("closeness_factors"),
            a.pointer<Real>("smoothness_factors"),
            a.integer("timesteps"),
            a.integer("columns"),
            a.integer("triples"),
            a.pointer<Real>("share"),
            {a.pointer<Real>("closeness"), a.pointer<Real>("smoothness")},
            {a.pointer<Real>("d_closeness"), a.pointer<Real>("d_smoothness")},
            a.pointer<Real>("d_values")};
}

template <class Real>
MotionStage<Real> motion(const Arguments& a) {
    MotionStage<Real> s{};
    s.values = a.pointer<Real>("values");
    s.timestep = a.pointer<int64_t>("timestep");
    take_pointers(a, "part", s.part);
    take_widths<kMotionParts>(a, s.begin);
    s.frames = a.integer("frames");
    s.timesteps = a.integer("timesteps");
    s.columns = a.integer("columns");
    s.d_values = a.pointer<Real>("d_values");
    return s;
}

}  // namespace

void bind_tracks(py::module_& module) {
    module.attr("track_parts") = kTrackParts;
    module.attr("track_columns") = kTrackColumns;
    module.attr("motion_parts") = kMotionParts;
    module.def("tracks", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a, [&](auto real) { run_tracks(tracks<decltype(real)>(a)); },
            [&](auto stream) { launch_tracks(tracks<float>(a), stream); });
    });
    module.def("tracks_backward", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a, [&](auto real) { run_tracks_backward(tracks_gradient<decltype(real)>(a)); },
            [&](auto stream) { launch_tracks_backward(tracks_gradient<float>(a), stream); });
    });
    module.def("track_costs", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a, [&](auto real) { run_track_costs(track_costs<decltype(real)>(a)); },
            [&](auto stream) { launch_track_costs(track_costs<float>(a), stream); });
    });
    module.def("track_costs_backward", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a, [&](auto real) { run_track_costs_backward(track_costs<decltype(real)>(a)); },
            [&](auto stream) { launch_track_costs_backward(track_costs<float>(a), stream); });
    });
    module.def("motion", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a, [&](auto real) { run_motion(motion<decltype(real)>(a)); },
            [&](auto stream) { launch_motion(motion<float>(a), stream); });
    });
    module.def("motion_backward", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a, [&](auto real) { run_motion_backward(motion<decltype(real)>(a)); },
            [&](auto stream) { launch_motion_backward(motion<float>(a), stream); });
    });
}

}  // namespace being::training
