// Stages `deform`, `project` and `bin`: from stored Gaussians to splats and the lists of who reaches which part of the
// picture, in one pass; a deformed Gaussian is never stored.
//
//   z = sum_k w_k Z_k;  o = B z;  position += o[0:3], q = nudge(q, o[3:6]), log scale += o[6:9], logit += o[9],
//   colour += o[10:13];  mean = F p + origin, M = F R(q) S;  then EWA projection (kernels/common/projection.h)
//
// A thread per Gaussian, a warp per group of 32 neighbours. What bounds it is memory: up to 13 * rank * 2 bytes of
// bases a Gaussian. As on the CPU, a group whose Gaussians all certainly face away is left before they are read, and
// channels that are zero for a whole group are not stored. The frame of a Gaussian's triangle is made here from its
// three vertices, which costs as many bytes as reading it would.
//
// Lists need no counting pass, no prefix sum and no global sort: what a list holds is not Gaussians but (group, mask of
// lanes), at most one per group, so that its length is bounded by the number of groups and one atomic serves up to 32
// Gaussians. In which order they are appended differs from run to run; the rasterizer sorts by depth and id, so the
// picture does not.
#include "kernels/common/gaussian.h"
#include "kernels/common/triangle_frame.h"
#include "kernels/cuda_stages.h"
#include "kernels/device/cost_class.cuh"
#include "kernels/device/launch.cuh"
#include "kernels/device/packed.cuh"

namespace being::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kCells = 1024;  // lists that a warp marks at once: at least a row of the largest picture's
constexpr unsigned kAll = ~0u;

using Gaussian = being::Gaussian<float>;

__device__ float fast_root(float x) {
    float result;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

__device__ Vector3<float> at3(const float4& v) {
    return {v.x, v.y, v.z};
}

__device__ Frame3f frame_of_face(const Face& face, const float4* posed) {
    const Vector3<float> p0 = at3(posed[face.corner[0]]), p1 = at3(posed[face.corner[1]]),
                         p2 = at3(posed[face.corner[2]]);
    return triangle_frame(
        p0, p1, p2,
        Matrix2<float>{face.inverse_rest[0], face.inverse_rest[1], face.inverse_rest[2], face.inverse_rest[3]});
}

// Whether every Gaussian of a group faces away so far that no offset the network can make this frame brings it back;
// the bound is derived in csrc/cpu/deform_project.cpp.
__device__ bool certainly_faded(const DeformStage& s, int group, int lane, const Gaussian& g, const Frame3f& frame) {
    if (__any_sync(kAll, g.unfading >= 0.5f)) return false;
    const Vector3<float> normal = frame.linear * rotated_z(g.rotation), mean = transform(frame, g.position);
    const float normal_length = sqrtf(dot(normal, normal)), distance = sqrtf(dot(mean, mean));
    const float cosine = -dot(normal, mean) / (normal_length * distance);
    if (__any_sync(kAll, !(cosine < -config::kFadeStart))) return false;
    const float* bound = s.basis_bound + size_t(group) * 2 * s.rank;
    float position = 0, rotation = 0;
    for (int k = lane; k < s.rank; k += kWarp) {
        const float largest = __uint_as_float(s.state->largest_latent[k]);
        position = fused(largest, __ldg(bound + k), position);
        rotation = fused(largest, __ldg(bound + s.rank + k), rotation);
    }
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
        position += __shfl_xor_sync(kAll, position, offset);
        rotation += __shfl_xor_sync(kAll, rotation, offset);
    }
    const float stretch = sqrtf(dot(frame.linear.x, frame.linear.x) + dot(frame.linear.y, frame.linear.y) + 1.0f);
    const float slack = 2.0f * stretch * (rotation / normal_length + position / distance);
    return __all_sync(kAll, cosine + slack < -config::kFadeStart);
}

// Adds B[channel] . z to stored channels.
template <int kQuads>
class Offsets {
  public:
    __device__ Offsets(const DeformStage& s, int group, int lane) : channels_(__ldg(s.basis_channels + group)) {
        if (!channels_) return;
        next_ = s.basis + size_t(__ldg(s.basis_begin + group)) * kQuads * kWarp + lane;
        const int place = group * kWarp + lane;
        const uint2 packed = __ldg(s.anchor_index + place);
        const float4 weight = __ldg(s.anchor_weight + place);
        const uint32_t index[4] = {packed.x & 0xffff, packed.x >> 16, packed.y & 0xffff, packed.y >> 16};
        const float share[4] = {weight.x, weight.y, weight.z, weight.w};
#pragma unroll
        for (int q = 0; q < kQuads; ++q) z_[q] = {0, 0, 0, 0};
#pragma unroll
        for (int a = 0; a < 4; ++a) {
            const auto* latent = reinterpret_cast<const float4*>(s.latent + size_t(index[a]) * s.rank);
#pragma unroll
            for (int q = 0; q < kQuads; ++q) {
                const float4 l = latent[q];
                z_[q] = {fused(share[a], l.x, z_[q].x), fused(share[a], l.y, z_[q].y), fused(share[a], l.z, z_[q].z),
                         fused(share[a], l.w, z_[q].w)};
            }
        }
    }

    __device__ float added_to(float base, int channel) {
        if (!(channels_ >> channel & 1)) return base;
        uint2 packed[kQuads];
#pragma unroll
        for (int q = 0; q < kQuads; ++q) packed[q] = __ldg(next_ + q * kWarp);
        next_ += kQuads * kWarp;
        float even = base, odd = 0;
#pragma unroll
        for (int q = 0; q < kQuads; ++q) {
            const float2 low = unpack_halves(packed[q].x), high = unpack_halves(packed[q].y);
            even = fused(low.x, z_[q].x, fused(high.x, z_[q].z, even));
            odd = fused(low.y, z_[q].y, fused(high.y, z_[q].w, odd));
        }
        return even + odd;
    }

  private:
    const uint2* next_ = nullptr;
    const uint32_t channels_;
    float4 z_[kQuads];
};

// Linear blend skinning of a torso group.
__device__ Frame3f blend_frames(const DeformStage& s, int torso_group, int lane) {
    Frame3f sum{};
#pragma unroll
    for (int k = 0; k < 3; ++k) {
        const float w = __ldg(s.torso_weights + (size_t(torso_group) * 3 + k) * kWarp + lane);
        const Frame3f& f = s.state->torso[k];
        sum = {{weighted(w, f.linear.x, sum.linear.x), weighted(w, f.linear.y, sum.linear.y),
                weighted(w, f.linear.z, sum.linear.z)},
               weighted(w, f.origin, sum.origin)};
    }
    return sum;
}

// What each sector around the neck adds to the torso's colours, by the whole block; [kMatchValues].
__device__ void match_colours(const DeformStage& s, float* match) {
    const unsigned t = threadIdx.x;
    if (t < kMatchValues) {
        float sum = __ldg(s.match_rest + t);
#pragma unroll 8
        for (int part = 0; part < s.match_parts; ++part) sum += s.match[part * kMatchValues + t];
        match[t] = sum;
    }
    __syncthreads();
}

// A visible splat's ellipse on the screen: pixels whose alpha is above the cut-off lie in it.
struct Ellipse {
    float x, y, reach_x, reach_y;    // centre, and half of the bounding box
    float shear_x, shear_y;          // how the middle of a row moves with y, and of a column with x
    float radius, inverse_c, width;  // half a row, squared: width * (radius - dy^2 * inverse_c)
    int left, right, top, bottom;    // of the lists that the bounding box meets
};

// What a warp needs to append its group: ellipses of its lanes, and which of them reach which list.
struct Map {
    Ellipse ellipse[kWarp];
    int first_task[kWarp];
    uint32_t mask[kCells];
    uint16_t cell[kCells];
};

// First and last column of lists that the ellipse meets in a row of them. It is convex, so what it meets is an
// interval, which ends where the row comes nearest to the ellipse's own leftmost and rightmost points.
__device__ int2 columns_met(const Ellipse& e, int row) {
    constexpr float kMargin = 0.01f;  // px, for rounding: a list may only be too long
    const float top = larger(float(row * config::kListSize) + 0.5f - e.y, -e.reach_y),
                bottom = smaller(float((row + 1) * config::kListSize) - 0.5f - e.y, e.reach_y);
    const float at = e.shear_y * e.reach_x;  // of the rightmost point; of the leftmost, the negative
    const float right_at = smaller(larger(at, top), bottom), left_at = smaller(larger(-at, top), bottom);
    const auto half = [&](float dy) {
        return fast_root(larger(e.width * (e.radius - dy * dy * e.inverse_c), 0.0f)) + kMargin;
    };
    const float right = fused(e.shear_x, right_at, half(right_at)), left = fused(e.shear_x, left_at, -half(left_at));
    const int first = int(larger(ceilf(e.x + left - 0.5f), 0.0f)) / config::kListSize,
              last = int(larger(floorf(e.x + right - 0.5f), -1.0f) + config::kListSize) / config::kListSize - 1;
    return {max(first, e.left), min(last, e.right)};
}

// An entry in each marked list; four of a lane's on their way at once.
__device__ void append_marked(const DeformStage& s, int group, int lane, int marked, int corner, int across,
                              const Map& map) {
    constexpr int kAtOnce = 4;
    for (int begin = lane; begin < marked; begin += kAtOnce * kWarp) {
        int list[kAtOnce];
        uint32_t slot[kAtOnce];
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
            const int i = begin + k * kWarp, cell = i < marked ? map.cell[i] : 0, row = cell / across;
            list[k] = corner + row * s.columns + cell - row * across;
            if (i < marked) slot[k] = atomicAdd(s.list_count + list[k], 1u);
        }
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
            const int i = begin + k * kWarp;
            if (i >= marked) break;
            if (slot[k] < uint32_t(s.list_capacity))
                s.list[size_t(list[k]) * s.list_capacity + slot[k]] = {uint32_t(group), map.mask[i]};
            else
                atomicMax(&s.state->segments_needed, slot[k] + 1);
        }
    }
}

// Appends the group to every list that some lane of it reaches. Rows of lists are the tasks, those of all ellipses in a
// row shared out among the lanes, so that one large splat does not keep 31 lanes waiting. They are marked in a map of
// the part of the picture where the group lies, as many rows of it as fit at a time; then each marked list gets one
// entry, as many at a time as there are lanes.
__device__ void append(const DeformStage& s, int group, unsigned lane, bool visible, const Ellipse& mine, Map& map) {
    const int left = __reduce_min_sync(kAll, visible ? mine.left : s.columns),
              right = __reduce_max_sync(kAll, visible ? mine.right : -1),
              top = __reduce_min_sync(kAll, visible ? mine.top : s.rows),
              bottom = __reduce_max_sync(kAll, visible ? mine.bottom : -1);
    const int across = right - left + 1, rows_at_once = kCells / across;
    map.ellipse[lane] = mine;
    for (int first = top; first <= bottom; first += rows_at_once) {
        const int last = min(first + rows_at_once - 1, bottom), cells = (last - first + 1) * across;
        for (int i = int(lane); i < cells; i += kWarp) map.mask[i] = 0;
        const int tasks = visible ? max(min(last, mine.bottom) - max(first, mine.top) + 1, 0) : 0;
        int sum = tasks;
#pragma unroll
        for (int offset = 1; offset < kWarp; offset *= 2) {
            const int below = __shfl_up_sync(kAll, sum, offset);
            if (int(lane) >= offset) sum += below;
        }
        map.first_task[lane] = sum - tasks;
        const int all = __shfl_sync(kAll, sum, kWarp - 1);
        __syncwarp();
        // Two tasks at a time: each by itself is a chain of dependent steps.
        for (int begin = int(lane); begin < all; begin += 2 * kWarp) {
            int owner[2] = {0, 0}, row[2];  // the last lane whose first task is not beyond this one
            int2 met[2];
#pragma unroll
            for (int step = kWarp / 2; step > 0; step /= 2)
#pragma unroll
                for (int i = 0; i < 2; ++i)
                    if (map.first_task[owner[i] + step] <= begin + i * kWarp) owner[i] += step;
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const Ellipse& e = map.ellipse[owner[i]];
                row[i] = max(first, e.top) + begin + i * kWarp - map.first_task[owner[i]];
                met[i] = columns_met(e, row[i]);
                if (begin + i * kWarp >= all) met[i] = {0, -1};
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                uint32_t* cell = map.mask + (row[i] - first) * across - left;
                for (int column = met[i].x; column <= met[i].y; ++column) atomicOr(cell + column, 1u << owner[i]);
            }
        }
        __syncwarp();
        // The marked cells, closed up: a cell only ever moves to where those before it were read already.
        int marked = 0;
        for (int begin = 0; begin < cells; begin += kWarp) {
            const int i = begin + int(lane);
            const uint32_t mask = i < cells ? map.mask[i] : 0;
            const uint32_t some = __ballot_sync(kAll, mask != 0);
            if (mask) {
                const int to = marked + __popc(some & ((1u << lane) - 1));
                map.mask[to] = mask;
                map.cell[to] = uint16_t(i);
            }
            marked += __popc(some);
            __syncwarp();
        }
        append_marked(s, group, int(lane), marked, first * s.columns + left, across, map);
        __syncwarp();
    }
}

// Writes the splats of a group and appends it to lists.
__device__ void project(const DeformStage& s, int group, int lane, const Gaussian& g, const Frame3f& frame, Map& map) {
    const Vector3<float> mean = transform(frame, g.position);
    const Matrix3<float> turned = frame.linear * rotation_matrix(g.rotation);
    float opacity = g.opacity * larger(facing_fade(turned.z, mean), g.unfading);
    bool visible = mean.z >= config::kNear && opacity >= config::kAlphaCutoff;
    const int place = group * kWarp + lane;
    if (!__any_sync(kAll, visible)) {
        s.depth[place] = -1;
        return;
    }
    const Intrinsics& k = s.state->camera;
    const Matrix3<float> axes{turned.x * g.scale.x, turned.y * g.scale.y, turned.z * g.scale.z};
    const Symmetric2<float> before = project_covariance(axes, mean, k), after = dilate(before, config::kDilation);
    if (s.antialiased) opacity *= dilation_compensation(before, after);
    opacity = smaller(opacity, config::kLargestAlpha);
    const float log_opacity = log2f(larger(opacity, 1e-6f));
    const Conic<float> conic = make_conic(after);

    // The pixels whose centres the visible ellipse's bounding box holds. Comparisons are so put that NaN is not
    // visible.
    const float inverse_z = 1.0f / mean.z;
    const float u = fused(mean.x * inverse_z, k.fx, k.cx), v = fused(mean.y * inverse_z, k.fy, k.cy);
    const float radius = visible_radius_squared(log_opacity), reach = larger(radius, 0.0f);
    const float reach_x = sqrtf(reach * after.a), reach_y = sqrtf(reach * after.c);
    const float left = larger(ceilf(u - reach_x - 0.5f), 0.0f),
                right = smaller(floorf(u + reach_x - 0.5f), float(s.width - 1));
    const float top = larger(ceilf(v - reach_y - 0.5f), 0.0f),
                bottom = smaller(floorf(v + reach_y - 0.5f), float(s.height - 1));
    visible = visible && radius >= 0.0f && right >= left && bottom >= top && fabsf(u) < 1e9f && fabsf(v) < 1e9f;
    s.depth[place] = visible ? mean.z : -1.0f;
    if (!__any_sync(kAll, visible)) return;
    const float inverse_c = 1.0f / after.c;
    const Ellipse ellipse{u,
                          v,
                          reach_x,
                          reach_y,
                          after.b * inverse_c,
                          after.b / after.a,
                          radius,
                          inverse_c,
                          after.determinant * inverse_c,
                          int(left) / config::kListSize,
                          int(right) / config::kListSize,
                          int(top) / config::kListSize,
                          int(bottom) / config::kListSize};
    append(s, group, unsigned(lane), visible, ellipse, map);
    if (!visible) return;
    Splat splat;
    splat.x = u;
    splat.y = v;
    splat.a = conic.a;
    splat.b = conic.b;
    splat.c = conic.c;
    splat.log_opacity = log_opacity;
    splat.red_green = pack_halves(clamp(g.colour.x, 0.0f, 1.0f), clamp(g.colour.y, 0.0f, 1.0f));
    splat.blue = pack_halves(clamp(g.colour.z, 0.0f, 1.0f), 0.0f);
    const auto* words = reinterpret_cast<const float4*>(&splat);
    auto* out = reinterpret_cast<float4*>(s.splats + place);
    out[0] = words[0];
    out[1] = words[1];
}

// Puts the rasterizer's blocks in order, 32 at a time.
__device__ void order_blocks(const DeformStage& s, int first, unsigned lane) {
    static_assert(kCostClasses == 2 * kWarp, "two classes per lane");
    const uint2 count = reinterpret_cast<const uint2*>(s.state->class_count)[lane];
    uint32_t begin = count.x + count.y;
    for (unsigned offset = 1; offset < kWarp; offset *= 2) {
        const uint32_t below = __shfl_up_sync(kAll, begin, offset);
        if (lane >= offset) begin += below;
    }
    begin -= count.x + count.y;
    const int block = first + int(lane);
    const bool present = block < s.blocks;
    const unsigned c = present ? cost_class(s.cost[block]) : 0;
    const uint32_t class_begin =
        __shfl_sync(kAll, begin, int(c / 2)) + __shfl_sync(kAll, count.x, int(c / 2)) * (c % 2);
    const uint32_t place = class_begin + take_place(s.state->class_placed, c, present, lane);
    if (present) s.order[place] = uint32_t(block);
}

template <int kQuads, bool kOne>
__global__ void __launch_bounds__(kThreads)
    deform_project_kernel(const __grid_constant__ Sessions<DeformStage> sessions) {
    __shared__ float match[kMatchValues];
    __shared__ Map maps[kWarps];
    const DeformStage s = stage_of<kOne>(sessions, blockIdx.y);
    Map& map = maps[threadIdx.x / kWarp];
    const int lane = int(threadIdx.x) % kWarp, first = int(blockIdx.x) * kWarps,
              group = first + int(threadIdx.x) / kWarp;

    // What no frame changes, before the frame is known.
    Gaussian g{};
    Face face{};
    if (group < s.groups) {
        const float* rows = s.gaussians + size_t(group) * kGroupRows * kWarp + lane;
        const auto row = [&](int i) { return __ldg(rows + i * kWarp); };
        g.position = {row(kPosition), row(kPosition + 1), row(kPosition + 2)};
        g.rotation = {row(kRotation), row(kRotation + 1), row(kRotation + 2), row(kRotation + 3)};
        g.unfading = row(kUnfading);
        g.scale = {row(kScale), row(kScale + 1), row(kScale + 2)};
        g.opacity = row(kOpacity);
        g.colour = {row(kColour), row(kColour + 1), row(kColour + 2)};
        if (group < s.head_groups) {
            const auto* from = reinterpret_cast<const int4*>(s.faces + __ldg(s.face + group * kWarp + lane));
            reinterpret_cast<int4*>(&face)[0] = __ldg(from);
            reinterpret_cast<int4*>(&face)[1] = __ldg(from + 1);
        }
    }
    for (int i = group * kWarp; i < s.blocks; i += int(gridDim.x) * int(kThreads)) order_blocks(s, i, unsigned(lane));

    // Sectors are needed by the whole block, if by one group of it.
    if (first < s.matched_groups && first + kWarps > s.head_groups) match_colours(s, match);
    if (group >= s.groups) return;
    if (group < s.head_groups) {
        const Frame3f frame = frame_of_face(face, s.posed);
        if (group < s.offset_groups) {
            if (certainly_faded(s, group, lane, g, frame)) {
                s.depth[group * kWarp + lane] = -1;
                return;
            }
            Offsets<kQuads> offsets(s, group, lane);
            apply_offsets(offsets, g);
        }
        project(s, group, lane, g, frame, map);
        return;
    }
    const int torso_group = group - s.head_groups;
    if (group < s.matched_groups) {
#pragma unroll
        for (int sector = 0; sector < config::kSectors; ++sector) {
            const float w = __ldg(s.match_weight + (size_t(torso_group) * config::kSectors + sector) * kWarp + lane);
            g.colour = weighted(w, {match[3 * sector], match[3 * sector + 1], match[3 * sector + 2]}, g.colour);
        }
    }
    project(s, group, lane, g, blend_frames(s, torso_group, lane), map);
}

}  // namespace

void launch_deform_project(const StageArray<DeformStage>& stages, int most_groups, int rank, cudaStream_t stream) {
    const dim3 grid{unsigned(most_groups > 0 ? (most_groups + kWarps - 1) / kWarps : 1), unsigned(stages.count)};
    const Sessions<DeformStage> sessions{stages.host[0], stages.device};
    const auto start = [&](auto one, auto many) {
        (stages.count == 1 ? one : many)<<<grid, kThreads, 0, stream>>>(sessions);
    };
    switch (rank) {
        case 16:
            return start(deform_project_kernel<4, true>, deform_project_kernel<4, false>);
        case 20:
            return start(deform_project_kernel<5, true>, deform_project_kernel<5, false>);
        case 32:
            return start(deform_project_kernel<8, true>, deform_project_kernel<8, false>);
        default:
            return start(deform_project_kernel<16, true>, deform_project_kernel<16, false>);
    }
}

int padded_rank(int rank) {
    return rank <= 16 ? 16 : rank <= 20 ? 20 : rank <= 32 ? 32 : 64;
}

}  // namespace being::cuda
