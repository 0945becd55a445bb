// Compiles the shared mathematics for the GPU: every function of kernels/common, in one kernel that nothing launches.
// The build fails here when a change for the CPU leaves what CUDA can compile.
#include "kernels/common/colour.h"
#include "kernels/common/composite.h"
#include "kernels/common/projection.h"
#include "kernels/common/rodrigues_gradient.h"
#include "kernels/common/rotation.h"
#include "kernels/common/tile_test.h"
#include "kernels/common/triangle_frame.h"
#include "kernels/launch.h"

namespace being {
namespace {

template <class Real>
__global__ void every_formula(const Real* in, Real* out, Intrinsics camera, SeamEllipse seam, Real softness) {
    const Vector3<Real> a{in[0], in[1], in[2]}, b{in[3], in[4], in[5]}, c{in[6], in[7], in[8]};
    const Frame3<Real> frame = triangle_frame(a, b, c, Matrix2<Real>{in[9], in[10], in[11], in[12]});
    const Quaternion<Real> q = nudge(Quaternion<Real>{in[13], in[14], in[15], in[16]}, b);
    const Matrix3<Real> turned = frame.linear * rotation_matrix(q);
    const Vector3<Real> mean = transform(frame * Frame3<Real>{rodrigues(a), c}, b);

    const Symmetric2<Real> before = project_covariance(turned, mean, camera),
                           after = dilate(before, Real(config::kDilation));
    const Conic<Real> conic = make_conic(after);
    const Real opacity = logistic(in[17]) * facing_fade(rotated_z(q), mean) * dilation_compensation(before, after);
    const Real radius = visible_radius_squared(log_two(opacity));
    const Real slope_x = -conic.b / (Real(2) * conic.a), slope_y = -conic.b / (Real(2) * conic.c);
    const Real exponent = largest_exponent(conic, slope_x, slope_y, in[18], in[19], Real(7), Real(7));

    const LayerPixel<Real> head{a, opacity, mean.z}, torso{b, power_of_two(exponent), radius};
    Pixel<Real> pixel = composite_layers(head, torso, head_in_front(head, torso, Real(1) / softness));
    pixel = fill_holes(pixel, seam, in[20], in[21]);
    const Vector3<Real> colour = rgb_to_ycbcr709(over_background(pixel, single_layer(head).colour));
    const SectorBlend sectors = blend_of_sectors(float(in[22]), config::kSectors);
    out[0] = colour.x + Real(sectors.second_weight);
    const Matrix3<Real> slope = transposed_times(turned, transposed(matrix_of_rows(in))) + outer(a, b);
    const Vector3<Real> turn = rodrigues_gradient(a, slope) + transposed_times(slope, c);
    write_rows(Frame3<Real>{slope, turn} * frame_of_rows(in), out + 2);
    write_rows(slope, out + 14);
    out[1] = select(sectors.first < sectors.second, colour.y, colour.z);
}

template __global__ void every_formula<float>(const float*, float*, Intrinsics, SeamEllipse, float);
template __global__ void every_formula<double>(const double*, double*, Intrinsics, SeamEllipse, double);

}  // namespace
}  // namespace being
