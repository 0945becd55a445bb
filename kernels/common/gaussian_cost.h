// What keeps Gaussians sensible where pictures say little, and the derivatives. Nothing here turns a NaN into a number,
// so that a parameter that has become one is seen in the loss.
#pragma once

#include "kernels/common/linear.h"

namespace being {

template <class Real>
BEING_HD inline Real hinge(Real x) {
    return larger(Real(0.0f), x);  // in this order, NaN stays NaN
}

// How far a Gaussian is from where it was put, in parts of its limit and beyond it: max(0, |x| / l - 1). Hinges as
// those of Qian et al., "GaussianAvatars", 2024, relative to their limits.
template <class Real>
BEING_HD inline Real distance_of(const Vector3<Real>& away) {
    return root(larger(Real(1e-16f), dot(away, away)));
}

template <class Real>
BEING_HD inline Real distance_cost(const Vector3<Real>& away, Real limit) {
    return hinge(distance_of(away) / limit - Real(1.0f));
}

template <class Real>
BEING_HD inline Vector3<Real> distance_cost_gradient(const Vector3<Real>& away, Real limit) {
    const Real distance = distance_of(away);
    return away * (distance > limit ? Real(1.0f) / (distance * limit) : Real(0.0f));
}

// Standard deviations beyond their limit, likewise, and how much longer than `ratio` times the shortest the longest is:
// the anisotropy regulariser of Xie et al., "PhysGaussian", 2024.
template <class Real>
BEING_HD inline Real scale_cost(const Vector3<Real>& log_scale, Real limit, Real ratio) {
    const Real most = larger(log_scale.x, larger(log_scale.y, log_scale.z));
    const Real least = smaller(log_scale.x, smaller(log_scale.y, log_scale.z));
    const Real excess = hinge(std::exp(log_scale.x) / limit - Real(1.0f)) +
                        hinge(std::exp(log_scale.y) / limit - Real(1.0f)) +
                        hinge(std::exp(log_scale.z) / limit - Real(1.0f));
    return excess + hinge(std::exp(most - least) / ratio - Real(1.0f));
}

// Axes that are equally long share what the longest or the shortest gets.
template <class Real>
BEING_HD inline Vector3<Real> scale_cost_gradient(const Vector3<Real>& log_scale, Real limit, Real ratio) {
    const Real s[3] = {log_scale.x, log_scale.y, log_scale.z};
    const Real most = larger(s[0], larger(s[1], s[2])), least = smaller(s[0], smaller(s[1], s[2]));
    const Real stretch = std::exp(most - least) / ratio;
    int longest = 0, shortest = 0;
    for (int k = 0; k < 3; ++k) longest += s[k] == most, shortest += s[k] == least;
    Real slope[3];
    for (int k = 0; k < 3; ++k) {
        const Real share = std::exp(s[k]) / limit;
        slope[k] = share > Real(1.0f) ? share : Real(0.0f);
        if (!(stretch > Real(1.0f))) continue;
        if (s[k] == most) slope[k] += stretch / Real(longest);
        if (s[k] == least) slope[k] -= stretch / Real(shortest);
    }
    return {slope[0], slope[1], slope[2]};
}

// 4 o (1 - o): 0 where a Gaussian is opaque or not there, 1 where it is half transparent.
template <class Real>
BEING_HD inline Real opacity_cost(Real logit) {
    const Real opacity = Real(1.0f) / (Real(1.0f) + std::exp(-logit));
    return Real(4.0f) * opacity * (Real(1.0f) - opacity);
}

template <class Real>
BEING_HD inline Real opacity_cost_gradient(Real logit) {
    const Real opacity = Real(1.0f) / (Real(1.0f) + std::exp(-logit));
    return Real(4.0f) * opacity * (Real(1.0f) - opacity) * (Real(1.0f) - Real(2.0f) * opacity);
}

}  // namespace being
