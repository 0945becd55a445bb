// What stands behind a batch of pictures: an opaque colour per batch, per picture, per row or column, or per pixel.
#pragma once

#include <cstdint>

#include "kernels/common/linear.h"

namespace being::training {

template <class Real>
struct Background {
    const Real* colour;                                 // [.., 3]
    int64_t stride_picture, stride_row, stride_column;  // in numbers; 0 where it does not change

    BEING_HD Vector3<Real> at(int picture, int y, int x) const {
        const Real* p = colour + picture * stride_picture + y * stride_row + x * stride_column;
        return {p[0], p[1], p[2]};
    }
};

}  // namespace being::training
