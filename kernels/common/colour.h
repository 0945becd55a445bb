// Colour spaces of the picture's formats.
#pragma once

#include "kernels/common/linear.h"

namespace being {

// BT.709, limited range, of R'G'B' in 0..1: Y in 16..235, Cb and Cr in 16..240 (ITU-R BT.709-6, items 3.2 to 3.4).
template <class Real>
BEING_HD inline Vector3<Real> rgb_to_ycbcr709(const Vector3<Real>& rgb) {
    const Real y = fused(rgb.x, Real(0.2126f), fused(rgb.y, Real(0.7152f), rgb.z * Real(0.0722f)));
    return {fused(y, Real(219.0f), Real(16.0f)), fused(rgb.z - y, Real(224.0f / 1.8556f), Real(128.0f)),
            fused(rgb.x - y, Real(224.0f / 1.5748f), Real(128.0f))};
}

// Low-frequency colour match across the seam: the angle about the seam's axis is cut into sectors; a Gaussian takes the
// difference of the two sectors whose centres are nearest, by linear interpolation.
struct SectorBlend {
    int first, second;
    float second_weight;
};

BEING_HD inline SectorBlend blend_of_sectors(float turns, int count) {  // turns: angle / 2 pi, 0..1
    const float u = turns * float(count) + float(count) - 0.5f;
    const int whole = int(u);
    return {whole % count, (whole + 1) % count, u - float(whole)};
}

}  // namespace being
