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
    const auto make = [](const Arguments& a, auto real) { return stage<decltype(real)>(a); };
    define_stage(
        module, "body", make, [](const auto& s) { run_body(s); },
        [](const auto& s, auto stream) { launch_body(s, stream); });
    define_stage(
        module, "body_backward", make, [](const auto& s) { run_body_backward(s); },
        [](const auto& s, auto stream) { launch_body_backward(s, stream); });
    module.attr("motions") = kMotions;
}

}  // namespace being::training
