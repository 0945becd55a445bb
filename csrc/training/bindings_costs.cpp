#include "csrc/training/bindings.h"
#include "kernels/training/costs.h"

namespace being::training {
namespace {

template <class Real>
CostStage<Real> stage(const Arguments& a) {
    return {a.pointer<Real>("position"),
            a.pointer<Real>("home"),
            a.pointer<Real>("limit"),
            a.pointer<Real>("log_scale"),
            a.pointer<Real>("scale_limit"),
            a.pointer<Real>("opacity_logit"),
            a.pointer<Real>("opacity_factor"),
            {Real(a.number("position_weight")), Real(a.number("scale_weight")), Real(a.number("opacity_weight"))},
            Real(a.number("ratio_limit")),
            a.integer("count"),
            a.pointer<Real>("share"),
            {a.pointer<Real>("position_cost"), a.pointer<Real>("scale_cost"), a.pointer<Real>("opacity_cost")},
            {a.pointer<Real>("d_position_cost"), a.pointer<Real>("d_scale_cost"), a.pointer<Real>("d_opacity_cost")},
            a.pointer<Real>("d_position"),
            a.pointer<Real>("d_log_scale"),
            a.pointer<Real>("d_opacity_logit")};
}

}  // namespace

void bind_costs(py::module_& module) {
    const auto make = [](const Arguments& a, auto real) { return stage<decltype(real)>(a); };
    module.attr("cost_group") = kCostGroup;
    define_stage(
        module, "costs", make, [](const auto& s) { run_costs(s); },
        [](const auto& s, auto stream) { launch_costs(s, stream); });
    define_stage(
        module, "costs_backward", make, [](const auto& s) { run_costs_backward(s); },
        [](const auto& s, auto stream) { launch_costs_backward(s, stream); });
}

}  // namespace being::training
