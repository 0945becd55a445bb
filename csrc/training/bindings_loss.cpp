#include "csrc/training/background.h"
#include "csrc/training/bindings.h"
#include "kernels/training/loss.h"

namespace being::training {
namespace {

template <class Real>
LossStage<Real> loss_stage(const Arguments& arguments) {
    LossStage<Real> stage{};
    stage.pictures = arguments.integer("pictures");
    stage.height = arguments.integer("height");
    stage.width = arguments.integer("width");
    stage.per_pixel = Real(1 / (double(stage.pictures) * stage.height * stage.width));
    stage.picture = arguments.pointer<const Real>("picture");
    stage.target = arguments.pointer<const uint8_t>("target");
    stage.weight = arguments.pointer<const uint8_t>("weight");
    stage.background = background_of<Real>(arguments);
    stage.l1 = Real(arguments.number("l1"));
    stage.dssim = Real(arguments.number("dssim"));
    stage.alpha = Real(arguments.number("alpha"));
    stage.ssim = arguments.number("dssim") > 0;
    stage.huber = Real(arguments.number("huber"));
    stage.tolerance = Real(arguments.number("tolerance"));
    stage.kept = arguments.pointer<Real>("kept");
    stage.partial = arguments.pointer<Real>("partial");
    stage.losses = arguments.pointer<Real>("losses");
    stage.losses_gradient = arguments.pointer<const Real>("losses_gradient");
    stage.picture_gradient = arguments.pointer<Real>("picture_gradient");
    return stage;
}

}  // namespace

void bind_loss(py::module_& module) {
    module.attr("loss_tile") = kLossTile;
    module.attr("ssim_kept") = kSsimKept;
    module.attr("ssim_kept_on_cuda") = kSsimKeptOnCuda;
    module.def("loss", [](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = loss_stage<decltype(real)>(arguments);
                const py::gil_scoped_release release;
                run_loss(stage);
            },
            [&](auto stream) { launch_loss(loss_stage<float>(arguments), stream); });
    });
    module.def("loss_backward", [](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = loss_stage<decltype(real)>(arguments);
                const py::gil_scoped_release release;
                run_loss_backward(stage);
            },
            [&](auto stream) { launch_loss_backward(loss_stage<float>(arguments), stream); });
    });
}

}  // namespace being::training
