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
    const auto make = [](const Arguments& a, auto real) { return stage<decltype(real)>(a); };
    define_stage(
        module, "statistics", make, [](const auto& s) { run_statistics(s); },
        [](const auto& s, auto stream) { launch_statistics(s, stream); });
}

}  // namespace being::training
