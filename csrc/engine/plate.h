// A background as it is written where no splat is: in an output's format.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/format.h"

namespace being {

size_t plate_bytes(Format format, int width, int height);

// rgbx: [height] rows of RGBX, `stride` bytes apart, or null for black. plate: plate_bytes, zeros. NV12 of an odd size,
// which is never drawn, stays as it is.
void make_plate(Format format, int width, int height, const uint8_t* rgbx, size_t stride, uint8_t* plate);

}  // namespace being
