// A Gaussian in world space to a splat on the picture, as the differentiable operation `project` does it. The steps are
// those of projection.h; unlike the engine's, camera and intrinsics are of any float type, for they too are trained.
#pragma once

#include "kernels/common/binding.h"
#include "kernels/common/projection.h"

namespace being {

// Also the form of a derivative by one; the limits have none.
template <class Real>
struct Pinhole {
    Frame3<Real> pose;      // world to camera
    Real fx, fy, cx, cy;    // px
    Real limit_x, limit_y;  // bounds of |x/z| and |y/z| in the Jacobian
};

// Also the form of a derivative by one.
template <class Real>
struct Splat {
    Real x, y;     // px
    Real a, b, c;  // inverse covariance [[a, b], [b, c]], px^-2
    Real opacity;  // 0: not visible
    Vector3<Real> colour;
    Real depth;  // metres along the camera's axis
};

// From the camera to a point in world space.
template <class Real>
BEING_HD inline Vector3<Real> view_of(const Pinhole<Real>& camera, const Vector3<Real>& point) {
    return point + transposed_times(camera.pose.linear, camera.pose.origin);  // the camera is at -R^T t
}

// `facing`: it fades as its normal, the third axis, turns away from the camera. Behind the camera all is 0.
template <class Real>
BEING_HD inline Splat<Real> project(const BoundGaussian<Real>& g, bool facing, bool antialiased,
                                    const Pinhole<Real>& camera) {
    const Vector3<Real> mean = transform(camera.pose, g.mean);
    if (!(mean.z >= Real(config::kNear))) return {};
    const Symmetric2<Real> before = axes_covariance(screen_axes(camera.pose.linear * g.factor, mean, camera));
    const Symmetric2<Real> after = dilate(before, Real(config::kDilation));
    const Real inverse_z = Real(1.0f) / mean.z, inverse_determinant = Real(1.0f) / after.determinant;
    Splat<Real> splat;
    splat.x = fused(camera.fx * mean.x, inverse_z, camera.cx);
    splat.y = fused(camera.fy * mean.y, inverse_z, camera.cy);
    splat.a = after.c * inverse_determinant;
    splat.b = -after.b * inverse_determinant;
    splat.c = after.a * inverse_determinant;
    splat.opacity = g.opacity;
    if (facing) splat.opacity *= facing_fade(g.factor.z, view_of(camera, g.mean));
    if (antialiased) splat.opacity *= dilation_compensation(before, after);
    const Real zero = Real(0.0f), one = Real(1.0f);
    splat.colour = {clamp(g.colour.x, zero, one), clamp(g.colour.y, zero, one), clamp(g.colour.z, zero, one)};
    splat.depth = mean.z;
    return splat;
}

}  // namespace being
