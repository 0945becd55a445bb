#include "csrc/training/bindings.h"
#include "kernels/training/offsets.h"

namespace being::training {
namespace {

template <class Real>
OffsetsForward<Real> forward(const Arguments& a) {
    return {a.pointer<Real>("latent"),
            a.pointer<int32_t>("anchor_index"),
            a.pointer<Real>("anchor_weight"),
            a.pointer<Real>("basis"),
            a.pointer<Real>("scale"),
            a.pointer<Real>("penalty"),
            a.pointer<Real>("share"),
            a.pointer<Real>("cost"),
            a.pointer<Real>("offsets"),
            a.integer("frames"),
            a.integer("anchors"),
            a.integer("count"),
            a.integer("rank")};
}

template <class Real>
OffsetsBackward<Real> backward(const Arguments& a) {
    return {a.pointer<Real>("latent"),
            a.pointer<int32_t>("anchor_index"),
            a.pointer<Real>("anchor_weight"),
            a.pointer<Real>("basis"),
            a.pointer<Real>("scale"),
            a.pointer<Real>("penalty"),
            a.pointer<Real>("offsets"),
            a.pointer<Real>("d_offsets"),
            a.pointer<Real>("d_cost"),
            a.pointer<int32_t>("entries"),
            a.pointer<int32_t>("starts"),
            a.pointer<Real>("d_mixed"),
            a.pointer<Real>("partial"),
            a.pointer<Real>("d_latent"),
            a.pointer<Real>("d_basis"),
            a.integer("frames"),
            a.integer("anchors"),
            a.integer("count"),
            a.integer("rank"),
            a.integer("slices")};
}

void check_aligned(const Arguments& a) {
    for (const char* name : {"latent", "anchor_index", "anchor_weight", "basis"})
        a.require_aligned("blend_offsets", name);
}

}  // namespace

void bind_offsets(py::module_& module) {
    module.attr("largest_rank") = kLargestRank;
    module.def("offsets_forward", [](const py::kwargs& given) {
        const Arguments a(given);
        check_aligned(a);
        dispatch(
            a, [&](auto real) { run_offsets_forward(forward<decltype(real)>(a)); },
            [&](auto stream) { launch_offsets_forward(forward<float>(a), stream); });
    });
    module.def("offsets_backward", [](const py::kwargs& given) {
        const Arguments a(given);
        check_aligned(a);
        dispatch(
            a, [&](auto real) { run_offsets_backward(backward<decltype(real)>(a)); },
            [&](auto stream) { launch_offsets_backward(backward<float>(a), stream); });
    });
}

}  // namespace being::training
