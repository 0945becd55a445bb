#include "csrc/training/bindings.h"
#include "kernels/training/body.h"

namespace being::training {
namespace {

template <class Real>
BodyStage<Real> stage(const Arguments& a) {
    return {a.pointer<Real>("translation"),    a.pointer<Real>("axis_angles"),
            a.pointer<Real>("transforms"),     a.pointer<Real>("response"),
            a.pointer<Real>("response_range"), a.pointer<Real>("per_motion"),
            a.pointer<Real>("about"),          a.integer("frames"),
            a.pointer<Real>("body"),           a.pointer<Real>("d_body"),
            a.pointer<Real>("d_translation"),  a.pointer<Real>("d_transforms"),
            a.pointer<Real>("d_response")};
}

}  // namespace

void bind_body(py::module_& module) {
    module.def("body", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a,
            [&](auto real) {
                const auto s = stage<decltype(real)>(a);
                const py::gil_scoped_release release;
                run_body(s);
            },
            [&](auto stream) { launch_body(stage<float>(a), stream); });
    });
    module.def("body_backward", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a,
            [&](auto real) {
                const auto s = stage<decltype(real)>(a);
                const py::gil_scoped_release release;
                run_body_backward(s);
            },
            [&](auto stream) { launch_body_backward(stage<float>(a), stream); });
    });
    module.attr("motions") = kMotions;
}

}  // namespace being::training
