#include "csrc/training/bindings.h"
#include "kernels/training/rasterize.h"

namespace being::training {
namespace {

template <class Real>
RasterizeStage<Real> make_rasterize_stage(const Arguments& arguments) {
    RasterizeStage<Real> stage{};
    stage.frames = arguments.integer("frames");
    stage.splats_per_frame = arguments.integer("splats_per_frame");
    stage.width = arguments.integer("width");
    stage.height = arguments.integer("height");
    stage.stop = Real(arguments.number("stop"));
    stage.splats = arguments.pointer<const Real>("splats");
    stage.sums = arguments.pointer<Real>("sums");
    stage.sums_gradient = arguments.pointer<const Real>("sums_gradient");
    stage.splats_gradient = arguments.pointer<Real>("splats_gradient");
    stage.capacity = arguments.long_integer("capacity");
    stage.scratch = arguments.pointer<int32_t>("scratch");
    return stage;
}

}  // namespace

void bind_rasterize(py::module_& module) {
    module.def("rasterize", [](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = make_rasterize_stage<decltype(real)>(arguments);
                const py::gil_scoped_release release;
                run_rasterize(stage);
            },
            [&](auto stream) { launch_rasterize(make_rasterize_stage<float>(arguments), stream); });
    });
    module.def("rasterize_backward", [](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = make_rasterize_stage<decltype(real)>(arguments);
                const py::gil_scoped_release release;
                run_rasterize_backward(stage);
            },
            [&](auto stream) { launch_rasterize_backward(make_rasterize_stage<float>(arguments), stream); });
    });
}

}  // namespace being::training
