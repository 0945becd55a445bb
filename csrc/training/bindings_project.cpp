#include "csrc/training/bindings.h"
#include "kernels/training/project.h"

namespace being::training {
namespace {

template <class Real>
ProjectStage<Real> make_stage(const Arguments& a) {
    return {a.integer("frames"),
            a.integer("count"),
            a.flag("antialiased"),
            a.flag("one_pose"),
            a.pointer<const Real>("bound"),
            a.pointer<const uint8_t>("facing"),
            a.pointer<const Real>("world_to_camera"),
            a.pointer<const Real>("intrinsics"),
            a.pointer<Real>("splats")};
}

template <class Real>
ProjectGradientStage<Real> make_gradient_stage(const Arguments& a) {
    return {
        make_stage<Real>(a),      a.pointer<const Real>("splats_gradient"),    a.pointer<Real>("bound_gradient"),
        a.pointer<Real>("parts"), a.pointer<Real>("world_to_camera_gradient"), a.pointer<Real>("intrinsics_gradient")};
}

}  // namespace

void bind_project(py::module_& module) {
    module.def("project", [](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = make_stage<decltype(real)>(arguments);
                const py::gil_scoped_release release;
                run_project(stage);
            },
            [&](auto stream) { launch_project(make_stage<float>(arguments), stream); });
    });
    module.def("project_backward", [](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = make_gradient_stage<decltype(real)>(arguments);
                const py::gil_scoped_release release;
                run_project_backward(stage);
            },
            [&](auto stream) { launch_project_backward(make_gradient_stage<float>(arguments), stream); });
    });
    module.attr("project_group") = kProjectGroup;
}

}  // namespace being::training
