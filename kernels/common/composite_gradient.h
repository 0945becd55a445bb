// Head over torso from what a rasterizer sums up, over a background; and the derivative. The forward formulas are in
// composite.h. A layer's five sums are red, green, blue (premultiplied), alpha, and depth weighted like a colour.
#pragma once

#include "kernels/common/composite.h"

namespace being {

// Depth is 0 where nothing is: there it does not matter, nor does its derivative.
template <class Real>
BEING_HD inline LayerPixel<Real> layer_of_sums(const Real* sums) {
    const Real alpha = sums[3];
    return {{sums[0], sums[1], sums[2]}, alpha, alpha > Real(0) ? sums[4] / alpha : Real(0)};
}

// From a gradient by what LayerPixel holds to one by the sums.
template <class Real>
BEING_HD inline void write_sums_gradient(const LayerPixel<Real>& layer, const LayerPixel<Real>& gradient, Real* sums) {
    const Real by_weighted_depth = layer.alpha > Real(0) ? gradient.depth / layer.alpha : Real(0);
    sums[0] = gradient.colour.x;
    sums[1] = gradient.colour.y;
    sums[2] = gradient.colour.z;
    sums[3] = gradient.alpha - by_weighted_depth * layer.depth;
    sums[4] = by_weighted_depth;
}

// Derivative of smoothstep (real.h).
template <class Real>
BEING_HD inline Real smoothstep_slope(Real x) {
    const Real t = clamp(x, Real(0), Real(1));
    return Real(6) * t * (Real(1) - t);
}

// Of over_background: the gradient by alpha, given that by the colour over the background and that by alpha itself.
// The gradient by the premultiplied colour is the former.
template <class Real>
BEING_HD inline Real alpha_gradient(const Vector3<Real>& background, const Vector3<Real>& by_colour, Real by_alpha) {
    return by_alpha - dot(by_colour, background);
}

// Of composite_layers and head_in_front: from the gradient by colour and alpha of the composed pixel. With f the share
// of the head in front,
//   C = (1 - (1 - f) at) h + (1 - f ah) t,   A = 1 - (1 - ah)(1 - at),   f = smoothstep(1/2 + (Dt - Dh) / (2 softness))
template <class Real>
BEING_HD inline void composite_gradient(const LayerPixel<Real>& head, const LayerPixel<Real>& torso,
                                        Real inverse_softness, const Vector3<Real>& by_colour, Real by_alpha,
                                        LayerPixel<Real>& head_gradient, LayerPixel<Real>& torso_gradient) {
    const Real one = Real(1), front = head_in_front(head, torso, inverse_softness), behind = one - front;
    const Real along_head = dot(by_colour, head.colour), along_torso = dot(by_colour, torso.colour);
    const Real x = fused((torso.depth - head.depth) * Real(0.5f), inverse_softness, Real(0.5f));
    const Real by_front = torso.alpha * along_head - head.alpha * along_torso;
    const Real by_torso_depth = by_front * smoothstep_slope(x) * Real(0.5f) * inverse_softness;
    head_gradient = {by_colour * (one - behind * torso.alpha), by_alpha * (one - torso.alpha) - front * along_torso,
                     -by_torso_depth};
    torso_gradient = {by_colour * (one - front * head.alpha), by_alpha * (one - head.alpha) - behind * along_head,
                      by_torso_depth};
}

// A pixel from layers' sums to red, green, blue over the background, and alpha; kTorso: of two layers, else of the
// head's.
template <bool kTorso, class Real>
BEING_HD inline void composite_sums(const Real* head_sums, const Real* torso_sums, Real inverse_softness,
                                    const Vector3<Real>& background, Real* picture) {
    const LayerPixel<Real> head = layer_of_sums(head_sums);
    Pixel<Real> pixel = single_layer(head);
    if constexpr (kTorso) {
        const LayerPixel<Real> torso = layer_of_sums(torso_sums);
        pixel = composite_layers(head, torso, head_in_front(head, torso, inverse_softness));
    }
    const Vector3<Real> colour = over_background(pixel, background);
    picture[0] = colour.x;
    picture[1] = colour.y;
    picture[2] = colour.z;
    picture[3] = pixel.alpha;
}

// The derivative: from the gradient by those four to the one by the sums. Each may lie where its sums do.
template <bool kTorso, class Real>
BEING_HD inline void composite_sums_gradient(const Real* head_sums, const Real* torso_sums, Real inverse_softness,
                                             const Vector3<Real>& background, const Real* gradient, Real* head_gradient,
                                             Real* torso_gradient) {
    const LayerPixel<Real> head = layer_of_sums(head_sums);
    const Vector3<Real> by_colour{gradient[0], gradient[1], gradient[2]};
    const Real by_alpha = alpha_gradient(background, by_colour, gradient[3]);
    if constexpr (kTorso) {
        const LayerPixel<Real> torso = layer_of_sums(torso_sums);
        LayerPixel<Real> by_head, by_torso;
        composite_gradient(head, torso, inverse_softness, by_colour, by_alpha, by_head, by_torso);
        write_sums_gradient(head, by_head, head_gradient);
        write_sums_gradient(torso, by_torso, torso_gradient);
    } else {
        write_sums_gradient(head, LayerPixel<Real>{by_colour, by_alpha, Real(0)}, head_gradient);
    }
}

}  // namespace being
