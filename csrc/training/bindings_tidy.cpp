#include "csrc/training/bindings.h"
#include "kernels/training/tidy.h"

namespace being::training {
namespace {

template <class Real>
TidyStage<Real> stage(const Arguments& a) {
    return {a.pointer<Real>("rotation"),
            a.pointer<Real>("colour"),
            a.pointer<Real>("opacity_logit"),
            a.pointer<Real>("log_scale"),
            a.pointer<Real>("position"),
            a.pointer<Real>("home"),
            Real(a.number("largest_logit")),
            Real(a.number("least_log_scale")),
            Real(a.number("largest_log_scale")),
            Real(a.number("reach")),
            a.integer("count")};
}

}  // namespace

void bind_tidy(py::module_& module) {
    const auto make = [](const Arguments& a, auto real) { return stage<decltype(real)>(a); };
    define_stage(
        module, "tidy", make, [](const auto& s) { run_tidy(s); },
        [](const auto& s, auto stream) { launch_tidy(s, stream); });
}

}  // namespace being::training
