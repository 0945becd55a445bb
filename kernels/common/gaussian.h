// A Gaussian, and what the offset network does to it.
#pragma once

#include "kernels/common/projection.h"
#include "kernels/common/rotation.h"

namespace being {

template <class Real>
struct Gaussian {
    Vector3<Real> position;
    Quaternion<Real> rotation;
    Vector3<Real> scale;  // metres
    Real opacity;         // 0..1
    Vector3<Real> colour;
    Real unfading;  // 1: keeps its opacity from behind, 0: fades
};

// position += o[0:3], q = nudge(q, o[3:6]), log scale += o[6:9], logit += o[9], colour += o[10:13]. Before, scales are
// logarithms in base 2 and the opacity a logit; after, they are what Gaussian says. `offsets.added_to(base, channel)`
// is base + o[channel], asked for in order of channels.
template <class Real, class Offsets>
BEING_HD inline void apply_offsets(Offsets& offsets, Gaussian<Real>& g) {
    const Real zero = Real(0.0f), log2_e = Real(1.44269504f);
    g.position.x = offsets.added_to(g.position.x, 0);
    g.position.y = offsets.added_to(g.position.y, 1);
    g.position.z = offsets.added_to(g.position.z, 2);
    Vector3<Real> turn;
    turn.x = offsets.added_to(zero, 3);
    turn.y = offsets.added_to(zero, 4);
    turn.z = offsets.added_to(zero, 5);
    g.rotation = nudge(g.rotation, turn);
    g.scale.x = power_of_two(fused(offsets.added_to(zero, 6), log2_e, g.scale.x));
    g.scale.y = power_of_two(fused(offsets.added_to(zero, 7), log2_e, g.scale.y));
    g.scale.z = power_of_two(fused(offsets.added_to(zero, 8), log2_e, g.scale.z));
    g.opacity = logistic(offsets.added_to(g.opacity, 9));
    g.colour.x = offsets.added_to(g.colour.x, 10);
    g.colour.y = offsets.added_to(g.colour.y, 11);
    g.colour.z = offsets.added_to(g.colour.z, 12);
}

}  // namespace being
