// How a picture looks at the world.
#pragma once

#include "kernels/common/linear.h"

namespace being {

// Pinhole camera (OpenCV axes) and picture size in pixels.
struct Camera {
    Frame3<float> world_to_camera;
    float fx, fy, cx, cy;
    int width, height;
};

}  // namespace being
