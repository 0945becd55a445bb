#include "csrc/training/bindings.h"
#include "kernels/training/statistics.h"

namespace being::training {
namespace {

template <class Real>
StatisticsStage<Real> stage(const Arguments& a) {
    return {a.pointer<Real>("splats"), a.pointer<Real>("d_splats"), a.pointer<Real>("gradient"),
            a.pointer<Real>("seen"),   a.pointer<Real>("opacity"),  Real(a.number("half_x")),
            Real(a.number("half_y")),  a.integer("frames"),         a.integer("count")};
}

}  // namespace

void bind_statistics(py::module_& module) {
    module.def("statistics", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a,
            [&](auto real) {
                const auto s = stage<decltype(real)>(a);
                const py::gil_scoped_release release;
                run_statistics(s);
            },
            [&](auto stream) { launch_statistics(stage<float>(a), stream); });
    });
}

}  // namespace being::training
