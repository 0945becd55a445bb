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
    module.def("tidy", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a,
            [&](auto real) {
                const auto s = stage<decltype(real)>(a);
                const py::gil_scoped_release release;
                run_tidy(s);
            },
            [&](auto stream) { launch_tidy(stage<float>(a), stream); });
    });
}

}  // namespace being::training
