// Stages `deform` and `project`: from stored Gaussians to splats, in one pass.
//
//   z = sum_k w_k Z_k;  o = B z;  position += o[0:3], q = nudge(q, o[3:6]), log scale += o[6:9], logit += o[9],
//   colour += o[10:13];  mean = F p + origin, M = F R(q) S;  then EWA projection (kernels/common/projection.h)
//
// 16 Gaussians per vector. What bounds it is memory: bases, up to 13 * rank * 2 bytes a Gaussian (520 at rank 20), and
// 64 bytes of splat written. Hence:
// - A block whose Gaussians all certainly face away is left before its bases are read (see certainly_faded).
// - Channels whose bases are zero for a whole block are not stored.
// - The latents are mixed per block from the few anchors that its 16 neighbours share, by broadcast, not by gathering.
// Which worker takes which chunk is decided as they go; where a chunk's results lie is not, so neither is their order.
#include "csrc/cpu/stages.h"
#include "kernels/common/gaussian.h"

namespace being::cpu::BEING_ISA {
namespace {

constexpr int kLargestRank = 64;

using Gaussian = being::Gaussian<Floats>;

Floats row(const float* gaussians, int index) {
    return Floats::load(gaussians + index * kLanes);
}

Vector3<Floats> rows3(const float* gaussians, int index) {
    return {row(gaussians, index), row(gaussians, index + 1), row(gaussians, index + 2)};
}

Gaussian load(const float* block) {
    return {rows3(block, kPosition),
            {row(block, kRotation), row(block, kRotation + 1), row(block, kRotation + 2), row(block, kRotation + 3)},
            rows3(block, kScale),
            row(block, kOpacity),
            rows3(block, kColour),
            row(block, kUnfading)};
}

// The frames of 16 triangles: 16 lines, transposed; cheaper than gathering twelve numbers of each.
Frame3<Floats> load_frames(const float* frames, const int32_t* face) {
    Floats r[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) r[lane] = Floats::load(frames + size_t(face[lane]) * kLanes);
    transpose(r);
    return {{{r[0], r[4], r[8]}, {r[1], r[5], r[9]}, {r[2], r[6], r[10]}}, {r[3], r[7], r[11]}};
}

// Whether every Gaussian of a block faces away so far that no offset the network can make this frame brings it back.
// With |Z_k| at most largest_latent, the rotation vector's length is at most r = sum_k largest_latent_k bound_k and so
// |R(q') z - R(q) z| <= r; likewise the position moves by at most d. F changes a unit normal's direction by at most
// 2 |F| / |F n| times as much, the view direction changes by at most 2 |F| d / |p|; and a cosine of unit vectors
// changes by no more than the two together.
bool certainly_faded(const DeformStage& s, int block, const Gaussian& g, const Frame3<Floats>& frame) {
    if (any(g.unfading >= Floats(0.5f))) return false;
    const Vector3<Floats> normal = frame.linear * rotated_z(g.rotation), mean = transform(frame, g.position);
    const Floats normal_length = root(dot(normal, normal)), distance = root(dot(mean, mean));
    const Floats cosine = -dot(normal, mean) / (normal_length * distance);
    if (any(cosine >= Floats(-config::kFadeStart))) return false;
    const float* bound = s.basis_bound + size_t(block) * 2 * s.latent_stride;
    float position = 0.0f, rotation = 0.0f;
    for (int k = 0; k < s.rank; ++k) {
        position += s.largest_latent[k] * bound[k];
        rotation += s.largest_latent[k] * bound[s.latent_stride + k];
    }
    const Floats stretch =
        root(dot(frame.linear.x, frame.linear.x) + dot(frame.linear.y, frame.linear.y) + Floats(1.0f));
    const Floats slack = Floats(2.0f) * stretch * (Floats(rotation) / normal_length + Floats(position) / distance);
    return !any(cosine + slack >= Floats(-config::kFadeStart));
}

// Latents of 16 Gaussians, [rank][16], from the anchors of their block.
void mix_latents(const DeformStage& s, int block, Floats* z) {
    const int first = s.anchor_begin[block], last = s.anchor_begin[block + 1];
    for (int k = 0; k < s.rank; k += 4) {
        Floats z0 = 0.0f, z1 = 0.0f, z2 = 0.0f, z3 = 0.0f;
        for (int a = first; a < last; ++a) {
            const float* latent = s.latent + size_t(s.anchor_index[a]) * s.latent_stride + k;
            const Floats weight = Floats::load(s.anchor_weight + size_t(a) * kLanes);
            z0 = fused(weight, Floats(latent[0]), z0);
            z1 = fused(weight, Floats(latent[1]), z1);
            z2 = fused(weight, Floats(latent[2]), z2);
            z3 = fused(weight, Floats(latent[3]), z3);
        }
        z[k] = z0;
        z[k + 1] = z1;
        z[k + 2] = z2;
        z[k + 3] = z3;
    }
}

// Reads a block's bases channel by channel, in order; a channel that is zero for all 16 Gaussians is not stored.
class Offsets {
  public:
    Offsets(const DeformStage& s, int block, const Floats* z)
        : next_(s.basis + size_t(s.basis_begin[block]) * s.rank * kLanes),
          channels_(s.basis_channels[block]),
          rank_(s.rank),
          z_(z) {}

    // base + B[channel] . z
    BEING_INLINE Floats added_to(const Floats& base, int channel) {
        if (!(channels_ >> channel & 1)) return base;
        // Two sums, so that one multiplication does not wait for the last.
        Floats even = base, odd = 0.0f;
        int k = 0;
        for (; k + 1 < rank_; k += 2) {
            prefetch(next_ + config::kBasisAhead);
            even = fused(Floats::load_half(next_), z_[k], even);
            odd = fused(Floats::load_half(next_ + kLanes), z_[k + 1], odd);
            next_ += 2 * kLanes;
        }
        if (k < rank_) {
            even = fused(Floats::load_half(next_), z_[k], even);
            next_ += kLanes;
        }
        return even + odd;
    }

  private:
    const Half* next_;
    const uint32_t channels_;
    const int rank_;
    const Floats* z_;
};

Gaussian deform(const DeformStage& s, int block, const Gaussian& g) {
    Floats z[kLargestRank];
    if (s.basis_channels[block]) mix_latents(s, block, z);
    Offsets offsets(s, block, z);
    Gaussian out = g;
    apply_offsets(offsets, out);
    return out;
}

Frame3<Floats> broadcast(const Frame3f& f) {
    return {{{f.linear.x.x, f.linear.x.y, f.linear.x.z},
             {f.linear.y.x, f.linear.y.y, f.linear.y.z},
             {f.linear.z.x, f.linear.z.y, f.linear.z.z}},
            {f.origin.x, f.origin.y, f.origin.z}};
}

// Linear blend skinning of a torso block's Gaussians.
Frame3<Floats> blend_frames(const DeformStage& s, int torso_block) {
    const Floats zero = 0.0f;
    Frame3<Floats> sum{{{zero, zero, zero}, {zero, zero, zero}, {zero, zero, zero}}, {zero, zero, zero}};
    for (int k = 0; k < 3; ++k) {
        const Floats w = Floats::load(s.torso_weights + (size_t(torso_block) * 3 + k) * kLanes);
        const Frame3<Floats> f = broadcast(s.torso_frame[k]);
        sum = {{weighted(w, f.linear.x, sum.linear.x), weighted(w, f.linear.y, sum.linear.y),
                weighted(w, f.linear.z, sum.linear.z)},
               weighted(w, f.origin, sum.origin)};
    }
    return sum;
}

void match_colour(const DeformStage& s, int torso_block, Vector3<Floats>& colour) {
    const float* weight = s.match_weight + size_t(torso_block) * config::kSectors * kLanes;
    for (int sector = 0; sector < config::kSectors; ++sector) {
        const float* add = s.match[sector];
        colour = weighted(Floats::load(weight + sector * kLanes), {add[0], add[1], add[2]}, colour);
    }
}

// Writes the splats of a block and packs keys and ids of the visible ones; returns how many there are.
int project(const DeformStage& s, int block, int layer, const Gaussian& g, const Frame3<Floats>& frame, uint32_t* key,
            uint32_t* id) {
    const Vector3<Floats> mean = transform(frame, g.position);
    const Matrix3<Floats> turned = frame.linear * rotation_matrix(g.rotation);
    Floats opacity = g.opacity * larger(facing_fade(turned.z, mean), g.unfading);
    const Mask candidate = (mean.z >= Floats(config::kNear)) & (opacity >= Floats(config::kAlphaCutoff));
    if (!any(candidate)) return 0;

    const Intrinsics& k = s.camera;
    const Matrix3<Floats> axes{turned.x * g.scale.x, turned.y * g.scale.y, turned.z * g.scale.z};
    const Symmetric2<Floats> before = project_covariance(axes, mean, k),
                             after = dilate(before, Floats(config::kDilation));
    if (s.antialiased) opacity = opacity * dilation_compensation(before, after);
    opacity = smaller(opacity, Floats(config::kLargestAlpha));
    const Floats log_opacity = log_two(larger(opacity, Floats(1e-6f)));
    const Conic<Floats> conic = make_conic(after);

    // The pixels whose centres the visible ellipse's bounding box holds.
    const Floats inverse_z = Floats(1.0f) / mean.z, half = 0.5f, zero = 0.0f;
    const Floats u = fused(mean.x * inverse_z, Floats(k.fx), Floats(k.cx));
    const Floats v = fused(mean.y * inverse_z, Floats(k.fy), Floats(k.cy));
    const Floats radius = visible_radius_squared(log_opacity), reach = larger(radius, zero);
    const Floats reach_x = root(reach * after.a), reach_y = root(reach * after.c);
    const Floats left = larger(-round_down(half - (u - reach_x)), zero);
    const Floats right = smaller(round_down(u + reach_x - half), Floats(float(s.width - 1)));
    const Floats top = larger(-round_down(half - (v - reach_y)), zero);
    const Floats bottom = smaller(round_down(v + reach_y - half), Floats(float(s.height - 1)));
    const Mask visible = candidate & (radius >= zero) & (right >= left) & (bottom >= top);
    const uint32_t visible_bits = bits(visible);
    if (!visible_bits) return 0;

    static_assert(config::kMacroTile == 32, "the shifts below");
    const Ints box = shift_right<5>(truncate(left)) | shift_left<8>(shift_right<5>(truncate(top))) |
                     shift_left<16>(shift_right<5>(truncate(right))) | shift_left<24>(shift_right<5>(truncate(bottom)));
    box.store(s.box + size_t(block) * kLanes);

    constexpr int kDepthBits = 2 * config::kSortBits - 1;
    const Floats depth = (mean.z - Floats(s.near_depth[layer])) * Floats(s.depth_scale[layer]);
    const Ints quantised = truncate(smaller(larger(depth, zero), Floats(float((1 << kDepthBits) - 1))));
    store_packed(visible_bits, quantised | Ints(layer << kDepthBits), key);
    store_packed(visible_bits, Ints::counting() + Ints(block * kLanes), id);

    const Floats one = 1.0f;
    const auto channel = [&](const Floats& c) { return clamp(c, zero, one); };
    Floats splat[kLanes] = {u,
                            v,
                            conic.a,
                            conic.b,
                            conic.c,
                            log_opacity + Floats(config::kOpacityBias),
                            channel(g.colour.x),
                            channel(g.colour.y),
                            channel(g.colour.z),
                            Floats(-0.5f) * conic.b / conic.a,
                            Floats(-0.5f) * conic.b / conic.c,
                            mean.z,
                            Floats(2.0f) * conic.b,
                            Floats(4.0f) * conic.c,
                            Floats(8.0f) * conic.c,
                            power_of_two(Floats(8.0f) * conic.c)};
    transpose(splat);
    float* out = s.splats + size_t(block) * kLanes * kSplatRows;
    for (int lane = 0; lane < kLanes; ++lane) splat[lane].store(out + lane * kSplatRows);
    return count_bits(visible_bits);
}

int deform_project(const DeformStage& s, int block, uint32_t* key, uint32_t* id) {
    Gaussian g = load(s.gaussians + size_t(block) * kGaussianRows * kLanes);
    if (block < s.head_blocks) {
        const Frame3<Floats> frame = load_frames(s.frames, s.face + size_t(block) * kLanes);
        if (block < s.offset_blocks) {
            if (certainly_faded(s, block, g, frame)) return 0;
            g = deform(s, block, g);
        }
        return project(s, block, 0, g, frame, key, id);
    }
    const int torso_block = block - s.head_blocks;
    if (torso_block < s.matched_blocks) match_colour(s, torso_block, g.colour);
    return project(s, block, 1, g, blend_frames(s, torso_block), key, id);
}

}  // namespace

void launch_deform_project(const DeformStage& s, Worker) {
    const FlushDenormals flush;
    constexpr int kChunk = config::kBlocksPerChunk;
    const int chunks = (s.blocks + kChunk - 1) / kChunk;
    for (int chunk; (chunk = s.next_chunk->fetch_add(1, std::memory_order_relaxed)) < chunks;) {
        const int last = (chunk + 1) * kChunk < s.blocks ? (chunk + 1) * kChunk : s.blocks;
        uint32_t *key = s.key + size_t(chunk) * kChunk * kLanes, *id = s.id + size_t(chunk) * kChunk * kLanes;
        int count = 0;
        for (int block = chunk * kChunk; block < last; ++block)
            count += deform_project(s, block, key + count, id + count);
        s.chunk_count[chunk] = count;
    }
}

}  // namespace being::cpu::BEING_ISA
