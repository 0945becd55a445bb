#include "csrc/training/bindings.h"
#include "kernels/training/anchors.h"

namespace being::training {
namespace {

template <class Real>
AnchorStage<Real> forward(const Arguments& a) {
    return {a.integer("frames"),
            a.integer("anchors"),
            a.integer("inputs"),
            a.integer("hidden0"),
            a.integer("hidden1"),
            a.integer("code"),
            a.integer("hidden2"),
            a.integer("rank"),
            a.pointer<Real>("condition"),
            a.pointer<Real>("trunk_weight_0"),
            a.pointer<Real>("trunk_bias_0"),
            a.pointer<Real>("trunk_weight_1"),
            a.pointer<Real>("trunk_bias_1"),
            a.pointer<Real>("anchor_code"),
            a.pointer<Real>("head_weight_0"),
            a.pointer<Real>("head_bias_0"),
            a.pointer<Real>("head_weight_1"),
            a.pointer<Real>("head_bias_1"),
            a.pointer<Real>("first"),
            a.pointer<Real>("second"),
            a.pointer<Real>("of_frame"),
            a.pointer<Real>("of_anchor"),
            a.pointer<Real>("latent")};
}

template <class Real>
AnchorGradientStage<Real> backward(const Arguments& a) {
    return {forward<Real>(a),
            a.pointer<Real>("d_latent"),
            a.pointer<Real>("share"),
            a.pointer<Real>("d_of_anchor"),
            a.pointer<Real>("d_of_frame"),
            a.pointer<Real>("d_second"),
            a.pointer<Real>("d_first"),
            a.pointer<Real>("d_condition"),
            a.pointer<Real>("d_trunk_weight_0"),
            a.pointer<Real>("d_trunk_bias_0"),
            a.pointer<Real>("d_trunk_weight_1"),
            a.pointer<Real>("d_trunk_bias_1"),
            a.pointer<Real>("d_anchor_code"),
            a.pointer<Real>("d_head_weight_0"),
            a.pointer<Real>("d_head_bias_0"),
            a.pointer<Real>("d_head_weight_1"),
            a.pointer<Real>("d_head_bias_1")};
}

}  // namespace

void bind_anchors(py::module_& module) {
    module.attr("anchor_layer") = kAnchorLayer;
    module.attr("anchor_tile") = kAnchorTile;
    module.def("anchors_fit", [](int hidden, int rank) { return anchor_floats(hidden, rank) <= kAnchorFloats; });
    module.def("anchors", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a, [&](auto real) { run_anchors(forward<decltype(real)>(a)); },
            [&](auto stream) { launch_anchors(forward<float>(a), stream); });
    });
    module.def("anchors_backward", [](const py::kwargs& given) {
        const Arguments a(given);
        dispatch(
            a, [&](auto real) { run_anchors_backward(backward<decltype(real)>(a)); },
            [&](auto stream) { launch_anchors_backward(backward<float>(a), stream); });
    });
}

}  // namespace being::training
