// Head over torso at the neck seam, and the picture over its background. Colours are premultiplied, sRGB 0..1.
#pragma once

#include "kernels/common/projection.h"

namespace being {

// What blending a layer front to back leaves in a pixel.
template <class Real>
struct LayerPixel {
    Vector3<Real> colour;  // premultiplied
    Real alpha;
    Real depth;  // alpha-weighted mean of camera z, metres; any finite value where alpha is 0
};

template <class Real>
struct Pixel {
    Vector3<Real> colour;  // premultiplied
    Real alpha;
    Real weighted_depth;  // depth times alpha, metres
};

template <class Real>
BEING_HD inline Pixel<Real> single_layer(const LayerPixel<Real>& layer) {
    return {layer.colour, layer.alpha, layer.alpha * layer.depth};
}

// Porter-Duff `over` in both orders, mixed by how surely the head is in front: a step in depth, `softness` metres wide,
// so that hair over a shoulder and a chin over the collar change order without a line.
template <class Real>
BEING_HD inline Real head_in_front(const LayerPixel<Real>& head, const LayerPixel<Real>& torso, Real inverse_softness) {
    return smoothstep(fused((torso.depth - head.depth) * Real(0.5f), inverse_softness, Real(0.5f)));
}

template <class Real>
BEING_HD inline Pixel<Real> composite_layers(const LayerPixel<Real>& head, const LayerPixel<Real>& torso, Real front) {
    // front (h + (1 - ah) t) + (1 - front) (t + (1 - at) h), gathered by layer
    const Real one = Real(1.0f), over_head = (one - front) * torso.alpha, over_torso = front * head.alpha;
    const Real h = one - over_head, t = one - over_torso;
    return {{fused(h, head.colour.x, t * torso.colour.x), fused(h, head.colour.y, t * torso.colour.y),
             fused(h, head.colour.z, t * torso.colour.z)},
            one - (one - head.alpha) * (one - torso.alpha),
            fused(h, head.alpha * head.depth, t * torso.alpha * torso.depth)};
}

// An ellipse on the screen around the neck, in which half-covered pixels are filled: turning the head opens gaps there.
// The seam's ellipsoid, axes radius/sqrt(2) across and half_height along, is projected as a Gaussian without dilation;
// the effect is full within a Mahalanobis distance of 1 and ends at 2.
struct SeamEllipse {
    float x, y;              // centre, px
    float a, b, c;           // squared Mahalanobis distance = a dx^2 + 2 b dx dy + c dy^2
    float reach_x, reach_y;  // px from the centre beyond which nothing is filled; 0: nowhere
};

template <class Real>
BEING_HD inline SeamEllipse make_seam_ellipse(const Vector3<Real>& centre, const Vector3<Real>& axis, Real radius,
                                              Real half_height, const Intrinsics& camera) {
    SeamEllipse seam{};
    if (!(centre.z >= Real(config::kNear))) return seam;
    // Two directions across the axis: the coordinate axis that is least along it, made perpendicular, and the third.
    const Real x = std::fabs(axis.x), y = std::fabs(axis.y), z = std::fabs(axis.z);
    const Vector3<Real> seed = x <= y && x <= z ? Vector3<Real>{1, 0, 0}
                               : y <= z         ? Vector3<Real>{0, 1, 0}
                                                : Vector3<Real>{0, 0, 1};
    Vector3<Real> across = cross(axis, seed);
    across = across * (Real(1) / root(dot(across, across)));
    const Vector3<Real> third = cross(axis, across);
    const Real r = radius * Real(0.70710678118654752);
    const Symmetric2<Real> s = project_covariance({across * r, third * r, axis * half_height}, centre, camera);
    if (!(s.determinant > 0)) return seam;  // a ring of radius 0, too: there is no seam then
    seam.x = float(Real(camera.fx) * centre.x / centre.z + Real(camera.cx));
    seam.y = float(Real(camera.fy) * centre.y / centre.z + Real(camera.cy));
    seam.a = float(s.c / s.determinant);
    seam.b = float(-s.b / s.determinant);
    seam.c = float(s.a / s.determinant);
    seam.reach_x = float(Real(2) * root(s.a));
    seam.reach_y = float(Real(2) * root(s.c));
    return seam;
}

template <class Real>
BEING_HD inline Pixel<Real> fill_holes(const Pixel<Real>& pixel, const SeamEllipse& seam, Real x, Real y) {
    const Real dx = x - Real(seam.x), dy = y - Real(seam.y), one = Real(1.0f);
    const Real square = fused(dx, fused(Real(seam.a), dx, Real(2.0f * seam.b) * dy), Real(seam.c) * dy * dy);
    const Real amount = one - smoothstep(root(larger(square, Real(0.0f))) - one);
    const Real filled = smoothstep((pixel.alpha - Real(0.05f)) * Real(1.0f / 0.45f));
    const Real gain = amount * larger(filled - pixel.alpha, Real(0.0f));
    const Real scale = one + gain / larger(pixel.alpha, Real(1e-6f));
    return {pixel.colour * scale, pixel.alpha + gain, pixel.weighted_depth * scale};
}

template <class Real>
BEING_HD inline Vector3<Real> over_background(const Pixel<Real>& pixel, const Vector3<Real>& background) {
    const Real t = Real(1.0f) - pixel.alpha;
    return {fused(t, background.x, pixel.colour.x), fused(t, background.y, pixel.colour.y),
            fused(t, background.z, pixel.colour.z)};
}

}  // namespace being
