#include "csrc/training/bindings.h"
#include "kernels/training/skin.h"

namespace being::training {
namespace {

template <class Real>
SkinRig<Real> rig(const Arguments& a) {
    return {a.pointer<Real>("template"),         a.pointer<Real>("expression_basis"),
            a.pointer<Real>("eyelid_basis"),     a.pointer<Real>("pose_basis"),
            a.pointer<Real>("skinning_weights"), a.pointer<Real>("joint_rest"),
            a.pointer<Real>("joint_expression"), a.integer("vertices")};
}

template <class Real>
SkinMotion<Real> motion(const Arguments& a) {
    return {a.pointer<Real>("expression"), a.pointer<Real>("axis_angles"), a.pointer<Real>("eyelids"),
            a.pointer<Real>("translation"), a.integer("frames")};
}

template <class Real>
SkinForward<Real> forward(const Arguments& a) {
    return {rig<Real>(a),
            motion<Real>(a),
            a.pointer<Real>("posed"),
            a.pointer<Real>("shaped"),
            a.pointer<Real>("transforms"),
            a.pointer<Real>("condition")};
}

template <class Real>
SkinBackward<Real> backward(const Arguments& a) {
    return {rig<Real>(a),
            motion<Real>(a),
            a.pointer<Real>("shaped"),
            a.pointer<Real>("transforms"),
            a.pointer<Real>("condition"),
            a.pointer<Real>("d_posed"),
            a.pointer<Real>("d_transforms"),
            a.pointer<Real>("d_condition"),
            a.pointer<Real>("sums"),
            a.pointer<Real>("d_expression"),
            a.pointer<Real>("d_axis_angles"),
            a.pointer<Real>("d_eyelids"),
            a.pointer<Real>("d_translation"),
            a.pointer<Real>("d_template"),
            a.pointer<Real>("d_expression_basis"),
            a.pointer<Real>("d_eyelid_basis")};
}

void check_aligned(const Arguments& a) {
    for (const char* name : {"expression_basis", "pose_basis"}) a.require_aligned("skin", name);
}

}  // namespace

void bind_skin(py::module_& module) {
    module.attr("skin_block") = kSkinBlock;
    module.attr("skin_sums") = kSkinSums;
    module.def("skin_forward", [](const py::kwargs& given) {
        const Arguments a(given);
        check_aligned(a);
        dispatch(
            a, [&](auto real) { run_skin_forward(forward<decltype(real)>(a)); },
            [&](auto stream) { launch_skin_forward(forward<float>(a), stream); });
    });
    module.def("skin_backward", [](const py::kwargs& given) {
        const Arguments a(given);
        check_aligned(a);
        dispatch(
            a, [&](auto real) { run_skin_backward(backward<decltype(real)>(a)); },
            [&](auto stream) { launch_skin_backward(backward<float>(a), stream); });
    });
}

}  // namespace being::training
