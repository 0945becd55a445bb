#include "csrc/engine/plate.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/colour.h"

namespace being {

size_t plate_bytes(Format format, int width, int height) {
    const size_t pixels = size_t(width) * height;
    return format == Format::kRgb ? pixels * 3 : format == Format::kRgba ? pixels * 4 : pixels * 3 / 2;
}

void make_plate(Format format, int width, int height, const uint8_t* rgbx, size_t stride, uint8_t* plate) {
    const size_t pixels = size_t(width) * height;
    const auto pixel = [&](int x, int y) { return rgbx + y * stride + size_t(x) * 4; };
    if (format == Format::kRgb && rgbx) {
        for (int y = 0; y < height; ++y)
            for (int x = 0; x < width; ++x)
                std::copy(pixel(x, y), pixel(x, y) + 3, plate + (size_t(y) * width + x) * 3);
    } else if (format == Format::kNv12 && width % 2 == 0 && height % 2 == 0) {
        const auto ycbcr = [&](int x, int y) {
            const uint8_t black[3] = {}, *p = rgbx ? pixel(x, y) : black;
            return rgb_to_ycbcr709(Vector3<float>{p[0] / 255.0f, p[1] / 255.0f, p[2] / 255.0f});
        };
        uint8_t* chroma = plate + pixels;
        for (int y = 0; y < height; y += 2)
            for (int x = 0; x < width; x += 2) {
                float cb = 0, cr = 0;
                for (int i = 0; i < 4; ++i) {
                    const Vector3<float> c = ycbcr(x + (i & 1), y + i / 2);
                    plate[size_t(y + i / 2) * width + x + (i & 1)] = uint8_t(std::lrintf(c.x));
                    cb += c.y;
                    cr += c.z;
                }
                chroma[size_t(y / 2) * width + x] = uint8_t(cb * 0.25f + 0.5f);
                chroma[size_t(y / 2) * width + x + 1] = uint8_t(cr * 0.25f + 0.5f);
            }
    }
}

}  // namespace being
