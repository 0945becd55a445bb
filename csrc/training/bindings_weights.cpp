#include "csrc/training/bindings.h"
#include "kernels/training/weights.h"

namespace being::training {
namespace {

template <class Real>
WeightStage<Real> stage(const Arguments& a) {
    return {a.pointer<Real>("rows"), a.pointer<uint8_t>("values"), a.integer("boxes"), a.integer("first"),
            a.integer("columns"),    uint8_t(a.integer("base")),   a.integer("batch"), a.integer("height"),
            a.integer("width"),      a.pointer<uint8_t>("weight")};
}

}  // namespace

void bind_weights(py::module_& module) {
    const auto make = [](const Arguments& a, auto real) { return stage<decltype(real)>(a); };
    define_stage(
        module, "box_weights", make, [](const auto& s) { run_box_weights(s); },
        [](const auto& s, auto stream) { launch_box_weights(s, stream); });
}

}  // namespace being::training
