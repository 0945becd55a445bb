#include "csrc/training/background.h"
#include "csrc/training/bindings.h"
#include "kernels/training/composite.h"

namespace being::training {
namespace {

template <class Real>
CompositeStage<Real> composite_stage(const Arguments& arguments) {
    CompositeStage<Real> stage{};
    stage.pictures = arguments.integer("pictures");
    stage.height = arguments.integer("height");
    stage.width = arguments.integer("width");
    stage.inverse_softness = Real(1 / arguments.number("softness"));
    stage.head = arguments.pointer<const Real>("head");
    stage.torso = arguments.pointer<const Real>("torso");
    stage.background = background_of<Real>(arguments);
    stage.picture = arguments.pointer<Real>("picture");
    stage.picture_gradient = arguments.pointer<const Real>("picture_gradient");
    stage.head_gradient = arguments.pointer<Real>("head_gradient");
    stage.torso_gradient = arguments.pointer<Real>("torso_gradient");
    return stage;
}

}  // namespace

void bind_composite(py::module_& module) {
    module.def("composite", [](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = composite_stage<decltype(real)>(arguments);
                const py::gil_scoped_release release;
                run_composite(stage);
            },
            [&](auto stream) { launch_composite(composite_stage<float>(arguments), stream); });
    });
    module.def("composite_backward", [](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = composite_stage<decltype(real)>(arguments);
                const py::gil_scoped_release release;
                run_composite_backward(stage);
            },
            [&](auto stream) { launch_composite_backward(composite_stage<float>(arguments), stream); });
    });
}

}  // namespace being::training
