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
    module.def("box_weights", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a,
            [&](auto real) {
                const auto s = stage<decltype(real)>(a);
                const py::gil_scoped_release release;
                run_box_weights(s);
            },
            [&](auto stream) { launch_box_weights(stage<float>(a), stream); });
    });
}

}  // namespace being::training
