#include "kernels/training/bind.h"

#include "csrc/training/bindings.h"

namespace being::training {
namespace {

template <class Real>
TriangleCarrier<Real> carrier_of(const Arguments& a, TriangleCarrier<Real>*) {
    return {a.integer("vertex_count"),         a.pointer<const Real>("vertices"),
            a.pointer<const int32_t>("faces"), a.pointer<const Real>("face_frames"),
            a.pointer<const int32_t>("face"),  a.pointer<const Real>("barycentric")};
}

template <class Real>
BodyCarrier<Real> carrier_of(const Arguments& a, BodyCarrier<Real>*) {
    return {a.pointer<const Real>("weights"), a.pointer<const Real>("body")};
}

template <class Real>
typename TriangleCarrier<Real>::Gradient carrier_gradient_of(const Arguments& a, TriangleCarrier<Real>*) {
    return {a.pointer<Real>("corner_gradient"), a.pointer<const int32_t>("vertex_begin"),
            a.pointer<const int32_t>("vertex_corner"), a.pointer<Real>("vertices_gradient")};
}

template <class Real>
typename BodyCarrier<Real>::Gradient carrier_gradient_of(const Arguments& a, BodyCarrier<Real>*) {
    return {a.pointer<Real>("parts"), a.pointer<Real>("body_gradient")};
}

template <class Real, template <class> class Carrier>
BindStage<Real, Carrier> make_stage(const Arguments& a) {
    return {a.integer("frames"),
            a.integer("count"),
            {a.pointer<const Real>("position"), a.pointer<const Real>("rotation"), a.pointer<const Real>("log_scale"),
             a.pointer<const Real>("opacity_logit"), a.pointer<const Real>("colour")},
            a.pointer<const Real>("offsets"),
            carrier_of(a, static_cast<Carrier<Real>*>(nullptr)),
            a.pointer<Real>("bound")};
}

template <class Real, template <class> class Carrier>
BindGradientStage<Real, Carrier> make_gradient_stage(const Arguments& a) {
    return {make_stage<Real, Carrier>(a),          a.pointer<const Real>("bound_gradient"),
            a.pointer<Real>("position_gradient"),  a.pointer<Real>("rotation_gradient"),
            a.pointer<Real>("log_scale_gradient"), a.pointer<Real>("opacity_logit_gradient"),
            a.pointer<Real>("colour_gradient"),    a.pointer<Real>("place_gradient"),
            a.pointer<Real>("offsets_gradient"),   carrier_gradient_of(a, static_cast<Carrier<Real>*>(nullptr))};
}

template <template <class> class Carrier>
void define(py::module_& module, const char* forward, const char* backward) {
    module.def(forward, [](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = make_stage<decltype(real), Carrier>(arguments);
                const py::gil_scoped_release release;
                run_bind(stage);
            },
            [&](auto stream) { launch_bind(make_stage<float, Carrier>(arguments), stream); });
    });
    module.def(backward, [](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = make_gradient_stage<decltype(real), Carrier>(arguments);
                const py::gil_scoped_release release;
                run_bind_backward(stage);
            },
            [&](auto stream) { launch_bind_backward(make_gradient_stage<float, Carrier>(arguments), stream); });
    });
}

}  // namespace

void bind_bind(py::module_& module) {
    define<TriangleCarrier>(module, "bind_head", "bind_head_backward");
    define<BodyCarrier>(module, "bind_torso", "bind_torso_backward");
    module.attr("bind_group") = kBindGroup;
}

}  // namespace being::training
