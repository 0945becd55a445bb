// Stage `skin`: posed vertices, then the frame of every triangle that carries Gaussians.
//
//   v = rest + sum_c coefficient_c basis_c;  v' = (sum_j w_j A_j) v     (Li et al. 2017, section 4)
//
// 16 vertices per vector. Bound by reading the basis: 138 columns * 3 * 2 bytes = 828 bytes a vertex, 4.2 MB for 5,023
// of them; columns whose coefficient is 0 are not read.
#include "csrc/cpu/stages.h"
#include "kernels/common/triangle_frame.h"

namespace being::cpu::BEING_ISA {
namespace {

Floats load_basis(const Half* p) {
    return Floats::load_half(p);
}
Floats load_basis(const float* p) {
    return Floats::load(p);
}

template <class Storage>
void skin(const SkinStage<Storage>& s, Worker worker) {
    const FlushDenormals flush;
    const int first = int(worker.begin(s.blocks)), last = int(worker.end(s.blocks)), stride = s.blocks * kLanes;
    Floats least = 3e38f, greatest = -3e38f;
    for (int block = first; block < last; ++block) {
        const float* rest = s.rest + size_t(block) * 3 * kLanes;
        const Storage* basis = s.basis + size_t(block) * s.columns * 3 * kLanes;
        // Two sums per axis, so that one multiplication does not wait for the last.
        Floats x0 = Floats::load(rest), y0 = Floats::load(rest + kLanes), z0 = Floats::load(rest + 2 * kLanes);
        Floats x1 = 0.0f, y1 = 0.0f, z1 = 0.0f;
        int i = 0;
        for (; i + 1 < s.active_count; i += 2) {
            const Storage *b0 = basis + size_t(s.active[i]) * 3 * kLanes,
                          *b1 = basis + size_t(s.active[i + 1]) * 3 * kLanes;
            const Floats c0 = s.coefficient[i], c1 = s.coefficient[i + 1];
            x0 = fused(load_basis(b0), c0, x0);
            y0 = fused(load_basis(b0 + kLanes), c0, y0);
            z0 = fused(load_basis(b0 + 2 * kLanes), c0, z0);
            x1 = fused(load_basis(b1), c1, x1);
            y1 = fused(load_basis(b1 + kLanes), c1, y1);
            z1 = fused(load_basis(b1 + 2 * kLanes), c1, z1);
        }
        if (i < s.active_count) {
            const Storage* b0 = basis + size_t(s.active[i]) * 3 * kLanes;
            const Floats c0 = s.coefficient[i];
            x0 = fused(load_basis(b0), c0, x0);
            y0 = fused(load_basis(b0 + kLanes), c0, y0);
            z0 = fused(load_basis(b0 + 2 * kLanes), c0, z0);
        }
        const Vector3<Floats> shaped{x0 + x1, y0 + y1, z0 + z1};
        Vector3<Floats> posed{0.0f, 0.0f, 0.0f};
        for (int j = 0; j < config::kJoints; ++j) {
            const Floats weight = Floats::load(s.weights + (size_t(block) * config::kJoints + j) * kLanes);
            const Frame3f& f = s.joint[j];
            const Frame3<Floats> joint{{{f.linear.x.x, f.linear.x.y, f.linear.x.z},
                                        {f.linear.y.x, f.linear.y.y, f.linear.y.z},
                                        {f.linear.z.x, f.linear.z.y, f.linear.z.z}},
                                       {f.origin.x, f.origin.y, f.origin.z}};
            const Vector3<Floats> moved = transform(joint, shaped);
            posed = {fused(weight, moved.x, posed.x), fused(weight, moved.y, posed.y), fused(weight, moved.z, posed.z)};
        }
        float* out = s.vertices + block * kLanes;
        posed.x.store(out);
        posed.y.store(out + stride);
        posed.z.store(out + 2 * stride);
        least = smaller(posed.z, least);
        greatest = larger(posed.z, greatest);
    }
    if (s.depth_range) {
        s.depth_range[2 * worker.index] = smallest(least);
        s.depth_range[2 * worker.index + 1] = largest(greatest);
    }
}

}  // namespace

void launch_skin(const SkinStage<Half>& s, Worker worker) {
    skin(s, worker);
}
void launch_skin_float(const SkinStage<float>& s, Worker worker) {
    skin(s, worker);
}

void launch_faces(const FaceStage& s, Worker worker) {
    const FlushDenormals flush;
    for (int block = int(worker.begin(s.blocks)); block < int(worker.end(s.blocks)); ++block) {
        const int32_t* corner = s.corner + size_t(block) * 3 * kLanes;
        Vector3<Floats> p[3];
        alignas(64) float gathered[3][3][kLanes];
        for (int c = 0; c < 3; ++c) {
            for (int lane = 0; lane < kLanes; ++lane) {
                const float* v = s.vertices + corner[c * kLanes + lane];
                gathered[c][0][lane] = v[0];
                gathered[c][1][lane] = v[s.vertex_stride];
                gathered[c][2][lane] = v[2 * s.vertex_stride];
            }
            p[c] = {Floats::load(gathered[c][0]), Floats::load(gathered[c][1]), Floats::load(gathered[c][2])};
        }
        const float* e = s.inverse_rest + size_t(block) * 4 * kLanes;
        const Matrix2<Floats> inverse_rest{Floats::load(e), Floats::load(e + kLanes), Floats::load(e + 2 * kLanes),
                                           Floats::load(e + 3 * kLanes)};
        const Frame3<Floats> f = triangle_frame(p[0], p[1], p[2], inverse_rest);
        Floats rows[kLanes] = {f.linear.x.x, f.linear.y.x, f.linear.z.x, f.origin.x,   f.linear.x.y, f.linear.y.y,
                               f.linear.z.y, f.origin.y,   f.linear.x.z, f.linear.y.z, f.linear.z.z, f.origin.z,
                               0.0f,         0.0f,         0.0f,         0.0f};
        transpose(rows);
        for (int lane = 0; lane < kLanes; ++lane) rows[lane].store(s.frames + (size_t(block) * kLanes + lane) * kLanes);
    }
}

}  // namespace being::cpu::BEING_ISA
