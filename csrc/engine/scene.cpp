#include "csrc/engine/scene.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "csrc/cpu/half.h"
#include "kernels/common/colour.h"
#include "kernels/common/triangle_frame.h"

namespace being {
namespace {

constexpr int kLanes = config::kLanes;

int blocks_of(int count) {
    return (count + kLanes - 1) / kLanes;
}
int padded(int count) {
    return blocks_of(count) * kLanes;
}

Vector3<float> at3(const float* p, int i) {
    return {p[3 * i], p[3 * i + 1], p[3 * i + 2]};
}
Vector3<float> operator+(const Vector3<float>& a, const Vector3<float>& b) {
    return {a.x + b.x, a.y + b.y, a.z + b.z};
}
float length(const Vector3<float>& a) {
    return std::sqrt(dot(a, a));
}

// Interleaves 10 bits of each coordinate: neighbours in space become neighbours in order (Morton 1966).
std::vector<uint32_t> morton_codes(const std::vector<Vector3<float>>& points) {
    Vector3<float> low{1e30f, 1e30f, 1e30f}, high{-1e30f, -1e30f, -1e30f};
    for (const auto& p : points) {
        low = {std::min(low.x, p.x), std::min(low.y, p.y), std::min(low.z, p.z)};
        high = {std::max(high.x, p.x), std::max(high.y, p.y), std::max(high.z, p.z)};
    }
    const float extent = std::max({high.x - low.x, high.y - low.y, high.z - low.z, 1e-9f});
    std::vector<uint32_t> codes;
    codes.reserve(points.size());
    for (const auto& p : points) {
        const float relative[3] = {(p.x - low.x) / extent, (p.y - low.y) / extent, (p.z - low.z) / extent};
        uint32_t code = 0;
        for (int axis = 0; axis < 3; ++axis) {
            const uint32_t v = uint32_t(std::clamp(relative[axis] * 1023.0f, 0.0f, 1023.0f));
            for (int bit = 0; bit < 10; ++bit) code |= (v >> bit & 1u) << (3 * bit + axis);
        }
        codes.push_back(code);
    }
    return codes;
}

// Indices 0..n-1 by group, then by whether they fade (so that whole blocks can be culled), then along the Morton curve.
std::vector<int32_t> spatial_order(const std::vector<Vector3<float>>& points, const uint8_t* fades,
                                   const std::vector<uint8_t>& group) {
    const std::vector<uint32_t> codes = morton_codes(points);
    std::vector<int32_t> order(points.size());
    std::iota(order.begin(), order.end(), 0);
    const auto key = [&](int32_t i) { return uint64_t(group[i]) << 33 | uint64_t(!fades[i]) << 32 | codes[i]; };
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return key(a) < key(b); });
    return order;
}

// The part of `order` that is in `group`, padded with -1 to whole blocks.
void append_group(const std::vector<int32_t>& order, const std::vector<uint8_t>& group, int wanted,
                  std::vector<int32_t>& out) {
    for (int32_t i : order)
        if (group[i] == wanted) out.push_back(i);
    out.resize(size_t(padded(int(out.size()))), -1);
}

// The Gaussians `source[0..count)` (-1: a copy of the one before that is never visible) into blocks. Log-domain values
// stay so where the offset network adds to them.
void pack_gaussians(const GaussiansView& g, const int32_t* source, int count, bool logarithmic,
                    const std::vector<Vector3<float>>& position, float* out) {
    int i = 0;
    for (int n = 0; n < count; ++n) {
        const bool padding = source[n] < 0;
        if (!padding) i = source[n];
        float* block = out + size_t(n / kLanes) * kGaussianRows * kLanes + n % kLanes;
        const auto put = [&](int row, float value) { block[row * kLanes] = value; };
        put(kPosition, position[i].x);
        put(kPosition + 1, position[i].y);
        put(kPosition + 2, position[i].z);
        for (int k = 0; k < 4; ++k) put(kRotation + k, g.rotation[4 * i + k]);
        for (int k = 0; k < 3; ++k) {
            const double log_scale = g.log_scale[3 * i + k];
            put(kScale + k, float(logarithmic ? log_scale * 1.4426950408889634 : std::exp(log_scale)));
            put(kColour + k, g.colour[3 * i + k]);
        }
        const double logit = g.opacity_logit[i];
        put(kOpacity,
            padding ? (logarithmic ? -1e3f : 0.0f) : float(logarithmic ? logit : 1.0 / (1.0 + std::exp(-logit))));
        put(kUnfading, g.facing_fade[i] ? 0.0f : 1.0f);
    }
}

// A head Gaussian at rest, and its position in the affine frame of its triangle with the barycentric part folded in.
struct RestBinding {
    std::vector<Vector3<float>> mean, local;
    float reach = 0;
};

RestBinding bind_at_rest(const AvatarView& avatar) {
    const RigView& rig = avatar.rig;
    RestBinding out;
    for (int i = 0; i < avatar.head.count; ++i) {
        const int32_t* corner = rig.face + 3 * avatar.head_face[i];
        const float *e = rig.face_frames + 4 * size_t(avatar.head_face[i]), *beta = avatar.head_barycentric + 3 * i;
        const Vector3<float> v0 = at3(rig.rest, corner[0]);
        const Frame3f frame = triangle_frame(v0, at3(rig.rest, corner[1]), at3(rig.rest, corner[2]),
                                             Matrix2<float>{e[0], e[1], e[2], e[3]});
        // u e1 + v e2 = [t b] E (u, v), and E is the inverse of what the rig stores.
        const double determinant = double(e[0]) * e[3] - double(e[1]) * e[2];
        const double inverse = determinant != 0 ? 1 / determinant : 0;
        Vector3<float> local = at3(avatar.head.position, i);
        local.x += float(inverse * (double(e[3]) * beta[1] - double(e[1]) * beta[2]));
        local.y += float(inverse * (double(e[0]) * beta[2] - double(e[2]) * beta[1]));
        out.local.push_back(local);
        out.mean.push_back(transform(frame, local));
        out.reach = std::max(out.reach, length(out.mean.back() - v0));
    }
    return out;
}

// The triangles of `face` (renumbered in place, in order of first use) and the vertices that they need.
void pack_mesh(const RigView& rig, Buffer<int32_t>& face, Scene& scene) {
    std::vector<int32_t> new_face(size_t(rig.faces), -1), faces, new_vertex(size_t(rig.vertices), -1), vertices;
    for (size_t i = 0; i < face.size(); ++i) {
        int32_t& number = new_face[size_t(face[i])];
        if (number < 0) {
            number = int32_t(faces.size());
            faces.push_back(face[i]);
            for (int c = 0; c < 3; ++c) {
                const int32_t v = rig.face[3 * face[i] + c];
                if (new_vertex[size_t(v)] < 0) {
                    new_vertex[size_t(v)] = int32_t(vertices.size());
                    vertices.push_back(v);
                }
            }
        }
        face[i] = number;
    }

    FaceMesh& out = scene.faces;
    out.blocks = blocks_of(int(faces.size()));
    out.corner.resize(size_t(out.blocks) * 3 * kLanes);
    out.inverse_rest.resize(size_t(out.blocks) * 4 * kLanes);
    for (size_t f = 0; f < faces.size(); ++f) {
        const size_t block = f / kLanes, lane = f % kLanes;
        for (int c = 0; c < 3; ++c)
            out.corner[(block * 3 + c) * kLanes + lane] = new_vertex[size_t(rig.face[3 * faces[f] + c])];
        for (int k = 0; k < 4; ++k)
            out.inverse_rest[(block * 4 + k) * kLanes + lane] = rig.face_frames[4 * size_t(faces[f]) + k];
    }

    SkinMesh& mesh = scene.mesh;
    mesh.vertices = int(vertices.size());
    mesh.blocks = blocks_of(mesh.vertices);
    mesh.columns = rig.expressions + 2 + config::kPoseFeatures;
    mesh.rest.resize(size_t(mesh.blocks) * 3 * kLanes);
    mesh.weights.resize(size_t(mesh.blocks) * config::kJoints * kLanes);
    mesh.basis.resize(size_t(mesh.blocks) * mesh.columns * 3 * kLanes);
    for (int n = 0; n < padded(mesh.vertices); ++n) {
        // Padding repeats the last vertex, so that it does not widen the range of depths.
        const size_t v = size_t(vertices[size_t(std::min(n, mesh.vertices - 1))]), block = size_t(n / kLanes),
                     lane = n % kLanes;
        for (int a = 0; a < 3; ++a) mesh.rest[(block * 3 + a) * kLanes + lane] = rig.rest[3 * v + a];
        for (int j = 0; j < config::kJoints; ++j)
            mesh.weights[(block * config::kJoints + j) * kLanes + lane] = rig.skinning_weights[config::kJoints * v + j];
    }
    pack_basis(mesh.basis.data(), padded(mesh.vertices), mesh.columns, [&](int n, int a, int c) {
        const size_t row = 3 * size_t(vertices[size_t(std::min(n, mesh.vertices - 1))]) + a;
        if (c < rig.expressions) return rig.expression_basis[row * rig.expressions + c];
        c -= rig.expressions;
        return c < 2 ? rig.eyelid_basis[row * 2 + c] : rig.pose_basis[row * config::kPoseFeatures + c - 2];
    });
}

// weight[row][column], rows of neurons, to [column][neuron], neurons padded; columns first..first+count.
Buffer<float> by_input(const float* weight, int neurons, int columns, int first, int count, int stride) {
    Buffer<float> out(size_t(count) * stride);
    for (int c = 0; c < count; ++c)
        for (int n = 0; n < neurons; ++n) out[size_t(c) * stride + n] = weight[size_t(n) * columns + first + c];
    return out;
}

Buffer<float> padded_copy(const float* values, int count) {
    Buffer<float> out{size_t(padded(count))};
    std::copy(values, values + count, out.data());
    return out;
}

void pack_network(const NetworkView& view, const int32_t* source, int offset_blocks, PackedNetwork& out) {
    out.hidden0 = view.hidden0;
    out.hidden1 = view.hidden1;
    out.hidden2 = view.hidden2;
    out.rank = view.rank;
    out.anchors = padded(view.anchors);
    out.latent_stride = padded(view.rank);
    out.trunk_weight_0 =
        by_input(view.trunk_weight_0, view.hidden0, config::kCondition, 0, config::kCondition, padded(view.hidden0));
    out.trunk_bias_0 = padded_copy(view.trunk_bias_0, view.hidden0);
    out.trunk_weight_1 =
        by_input(view.trunk_weight_1, view.hidden1, view.hidden0, 0, view.hidden0, padded(view.hidden1));
    out.trunk_bias_1 = padded_copy(view.trunk_bias_1, view.hidden1);
    const int head_inputs = view.hidden1 + view.code;
    out.head_weight_0 = by_input(view.head_weight_0, view.hidden2, head_inputs, 0, view.hidden1, padded(view.hidden2));
    out.head_weight_1 = by_input(view.head_weight_1, view.rank, view.hidden2, 0, view.hidden2, out.latent_stride);
    out.head_bias_1 = padded_copy(view.head_bias_1, view.rank);
    out.anchor_bias.resize(size_t(out.anchors) * view.hidden2);
    for (int a = 0; a < view.anchors; ++a)
        for (int n = 0; n < view.hidden2; ++n) {
            double sum = view.head_bias_0[n];
            for (int c = 0; c < view.code; ++c)
                sum += double(view.head_weight_0[size_t(n) * head_inputs + view.hidden1 + c]) *
                       view.anchor_code[size_t(a) * view.code + c];
            out.anchor_bias[(size_t(a / kLanes) * view.hidden2 + n) * kLanes + a % kLanes] = float(sum);
        }

    // Bases: of each block, the channels that some Gaussian of it uses.
    const size_t per_gaussian = size_t(config::kChannels) * view.rank;
    out.basis_begin.resize(size_t(offset_blocks));
    out.basis_channels.resize(size_t(offset_blocks));
    std::vector<Half> stored;
    for (int block = 0; block < offset_blocks; ++block) {
        out.basis_begin[size_t(block)] = int32_t(stored.size() / (size_t(view.rank) * kLanes));
        for (int channel = 0; channel < config::kChannels; ++channel) {
            std::vector<Half> rows(size_t(view.rank) * kLanes, 0);
            bool used = false;
            for (int lane = 0; lane < kLanes; ++lane) {
                const int32_t i = source[block * kLanes + lane];
                for (int k = 0; i >= 0 && k < view.rank; ++k) {
                    const Half value = view.basis[size_t(i) * per_gaussian + size_t(channel) * view.rank + k];
                    rows[size_t(k) * kLanes + lane] = value;
                    used |= (value & 0x7fff) != 0;
                }
            }
            if (!used) continue;
            out.basis_channels[size_t(block)] |= 1u << channel;
            stored.insert(stored.end(), rows.begin(), rows.end());
        }
    }
    out.basis.resize(stored.size() + config::kBasisAhead);
    std::copy(stored.begin(), stored.end(), out.basis.data());
    out.basis_bound.resize(size_t(offset_blocks) * 2 * out.latent_stride);
    out.anchor_begin.resize(size_t(offset_blocks) + 1);
    std::vector<int32_t> anchors;
    std::vector<float> weights;
    for (int block = 0; block < offset_blocks; ++block) {
        const size_t first = anchors.size();
        for (int lane = 0; lane < kLanes; ++lane) {
            const int32_t i = source[block * kLanes + lane];
            if (i < 0) continue;
            const Half* from = view.basis + size_t(i) * per_gaussian;
            for (int k = 0; k < view.rank; ++k)
                for (int kind = 0; kind < 2; ++kind) {  // position, rotation
                    double square = 0;
                    for (int a = 0; a < 3; ++a)
                        square += std::pow(half_to_float(from[(3 * kind + a) * view.rank + k]), 2);
                    float& bound = out.basis_bound[(size_t(block) * 2 + kind) * out.latent_stride + k];
                    bound = std::max(bound, float(std::sqrt(square)));
                }
            for (int c = 0; c < 4; ++c) {
                const int32_t anchor = view.anchor_index[4 * size_t(i) + c];
                const size_t place = std::find(anchors.begin() + first, anchors.end(), anchor) - anchors.begin();
                if (place == anchors.size()) {
                    anchors.push_back(anchor);
                    weights.resize(weights.size() + kLanes, 0.0f);
                }
                weights[place * kLanes + lane] += view.anchor_weight[4 * size_t(i) + c];
            }
        }
        out.anchor_begin[size_t(block) + 1] = int32_t(anchors.size());
    }
    out.anchor_index.resize(anchors.size());
    std::copy(anchors.begin(), anchors.end(), out.anchor_index.data());
    out.anchor_weight.resize(weights.size());
    std::copy(weights.begin(), weights.end(), out.anchor_weight.data());
}

// Turns around the seam's axis of a point at rest: 0 towards +Z, growing towards +X.
float turns_around(const SeamView& seam, const Vector3<float>& point) {
    const Vector3<float> axis = at3(seam.axis, 0);
    Vector3<float> front = Vector3<float>{0, 0, 1} - axis * axis.z;
    front = front * (1.0f / std::max(length(front), 1e-9f));
    const Vector3<float> side = cross(axis, front), relative = point - at3(seam.centre, 0);
    const float turns = std::atan2(dot(relative, side), dot(relative, front)) * 0.15915494f;  // 1 / 2 pi
    return turns < 0 ? turns + 1 : turns;
}

void pack_match(const AvatarView& avatar, const RestBinding& rest, const std::vector<int32_t>& torso_source,
                Scene& scene) {
    const SeamView& seam = avatar.seam;
    const NetworkView& network = avatar.network;
    ColourMatch& match = scene.match;
    constexpr int kSectors = config::kSectors;
    const auto sector_of = [](float turns) { return std::min(int(turns * kSectors), kSectors - 1); };

    int head_members[kSectors] = {}, torso_members[kSectors] = {};
    double head_sum[kSectors][3] = {}, torso_sum[kSectors][3] = {};
    std::vector<int> head_sector(size_t(seam.head_band_count));
    for (int n = 0; n < seam.head_band_count; ++n) {
        const int i = seam.head_band[n], sector = sector_of(turns_around(seam, rest.mean[size_t(i)]));
        head_sector[size_t(n)] = sector;
        ++head_members[sector];
        for (int c = 0; c < 3; ++c) head_sum[sector][c] += avatar.head.colour[3 * i + c];
    }
    std::vector<float> weight(size_t(avatar.torso.count) * kSectors, 0.0f);
    for (int n = 0; n < seam.torso_band_count; ++n) {
        const int i = seam.torso_band[n];
        const float turns = turns_around(seam, at3(avatar.torso.position, i));
        const int sector = sector_of(turns);
        ++torso_members[sector];
        for (int c = 0; c < 3; ++c) torso_sum[sector][c] += avatar.torso.colour[3 * i + c];
        const SectorBlend blend = blend_of_sectors(turns, kSectors);
        weight[size_t(i) * kSectors + blend.first] += seam.torso_band_weight[n] * (1 - blend.second_weight);
        weight[size_t(i) * kSectors + blend.second] += seam.torso_band_weight[n] * blend.second_weight;
    }
    for (int sector = 0; sector < kSectors; ++sector) {
        match.active[sector] = head_members[sector] > 0 && torso_members[sector] > 0;
        if (!match.active[sector]) continue;
        for (int c = 0; c < 3; ++c)
            match.rest_difference[sector][c] =
                float(head_sum[sector][c] / head_members[sector] - torso_sum[sector][c] / torso_members[sector]);
    }

    const size_t row = size_t(network.rank) * kSectors * 3;
    std::vector<int> place(size_t(network.anchors), -1);
    for (int n = 0; n < seam.head_band_count; ++n) {
        const int i = seam.head_band[n], sector = head_sector[size_t(n)];
        if (i >= network.count || !match.active[sector]) continue;
        const Half* basis = network.basis + size_t(i) * config::kChannels * network.rank;
        for (int a = 0; a < 4; ++a) {
            const int anchor = network.anchor_index[4 * i + a];
            if (place[size_t(anchor)] < 0) {
                place[size_t(anchor)] = int(match.anchor.size());
                match.anchor.push_back(anchor);
                match.coefficient.resize(match.coefficient.size() + row, 0.0f);
            }
            float* out = match.coefficient.data() + size_t(place[size_t(anchor)]) * row;
            const float share = network.anchor_weight[4 * i + a] / float(head_members[sector]);
            for (int k = 0; k < network.rank; ++k)
                for (int c = 0; c < 3; ++c)
                    out[(k * kSectors + sector) * 3 + c] += share * half_to_float(basis[(10 + c) * network.rank + k]);
        }
    }

    match.weight.resize(size_t(match.matched_blocks) * kSectors * kLanes);
    for (int n = 0; n < match.matched_blocks * kLanes; ++n)
        for (int sector = 0; sector < kSectors; ++sector)
            if (torso_source[size_t(n)] >= 0)
                match.weight[(size_t(n / kLanes) * kSectors + sector) * kLanes + n % kLanes] =
                    weight[size_t(torso_source[size_t(n)]) * kSectors + sector];
}

}  // namespace

Scene pack_scene(const AvatarView& avatar) {
    Scene scene;
    const RigView& rig = avatar.rig;
    scene.expressions = rig.expressions;
    scene.joint_rest.assign(rig.joint_rest, rig.joint_rest + 3 * config::kJoints);
    scene.joint_expression.assign(rig.joint_expression,
                                  rig.joint_expression + size_t(3) * config::kJoints * rig.expressions);

    // Head: with offsets first, then without.
    const RestBinding rest = bind_at_rest(avatar);
    std::vector<uint8_t> head_group(size_t(avatar.head.count));
    for (int i = 0; i < avatar.head.count; ++i) head_group[size_t(i)] = i >= avatar.network.count;
    const std::vector<int32_t> head_order = spatial_order(rest.mean, avatar.head.facing_fade, head_group);
    std::vector<int32_t> source;
    append_group(head_order, head_group, 0, source);
    scene.offset_blocks = int(source.size()) / kLanes;
    append_group(head_order, head_group, 1, source);
    scene.head_blocks = int(source.size()) / kLanes;

    // Torso: those that the colour match touches first.
    std::vector<Vector3<float>> torso_position;
    for (int i = 0; i < avatar.torso.count; ++i) torso_position.push_back(at3(avatar.torso.position, i));
    std::vector<uint8_t> torso_group(size_t(avatar.torso.count), 1);
    for (int n = 0; n < avatar.seam.torso_band_count; ++n) torso_group[size_t(avatar.seam.torso_band[n])] = 0;
    const std::vector<int32_t> torso_order = spatial_order(torso_position, avatar.torso.facing_fade, torso_group);
    std::vector<int32_t> torso_source;
    append_group(torso_order, torso_group, 0, torso_source);
    scene.match.matched_blocks = int(torso_source.size()) / kLanes;
    append_group(torso_order, torso_group, 1, torso_source);
    scene.blocks = scene.head_blocks + int(torso_source.size()) / kLanes;

    const int offset_count = scene.offset_blocks * kLanes, head_count = scene.head_blocks * kLanes;
    const size_t block_floats = size_t(kGaussianRows) * kLanes;
    scene.gaussians.resize(scene.blocks * block_floats);
    pack_gaussians(avatar.head, source.data(), offset_count, true, rest.local, scene.gaussians.data());
    pack_gaussians(avatar.head, source.data() + offset_count, head_count - offset_count, false, rest.local,
                   scene.gaussians.data() + scene.offset_blocks * block_floats);
    pack_gaussians(avatar.torso, torso_source.data(), int(torso_source.size()), false, torso_position,
                   scene.gaussians.data() + scene.head_blocks * block_floats);

    scene.torso_weights.resize(torso_source.size() * 3);
    for (size_t n = 0; n < torso_source.size(); ++n)
        for (int k = 0; k < 3; ++k)
            if (torso_source[n] >= 0)
                scene.torso_weights[(n / kLanes * 3 + k) * kLanes + n % kLanes] =
                    avatar.torso_weights[3 * torso_source[n] + k];

    scene.face.resize(size_t(head_count));
    for (int n = 0, face = 0; n < head_count; ++n) {
        if (source[size_t(n)] >= 0) face = avatar.head_face[source[size_t(n)]];
        scene.face[size_t(n)] = face;
    }
    if (head_count > 0) pack_mesh(rig, scene.face, scene);
    if (avatar.network.count > 0) pack_network(avatar.network, source.data(), scene.offset_blocks, scene.network);
    pack_match(avatar, rest, torso_source, scene);

    // Half as much again and 5 cm: expressions stretch triangles and offsets move Gaussians. What lies beyond is drawn
    // all the same, in coarser order.
    scene.head_reach = 1.5f * rest.reach + 0.05f;
    Vector3<float> low{1e30f, 1e30f, 1e30f}, high{-1e30f, -1e30f, -1e30f};
    for (const auto& p : torso_position) {
        low = {std::min(low.x, p.x), std::min(low.y, p.y), std::min(low.z, p.z)};
        high = {std::max(high.x, p.x), std::max(high.y, p.y), std::max(high.z, p.z)};
    }
    scene.response = avatar.response;
    if (!torso_position.empty()) {
        scene.torso_centre = (low + high) * 0.5f;
        scene.torso_radius = 0.5f * length(high - low) + 0.01f;
    }

    source.insert(source.end(), torso_source.begin(), torso_source.end());
    scene.source = std::move(source);
    scene.seam_centre = at3(avatar.seam.centre, 0);
    scene.seam_axis = at3(avatar.seam.axis, 0);
    scene.seam_radius = avatar.seam.radius;
    scene.seam_half_height = avatar.seam.half_height;
    scene.depth_softness = avatar.seam.depth_softness;
    scene.antialiased = avatar.antialiased;
    return scene;
}

size_t Scene::bytes() const {
    return mesh.rest.bytes() + mesh.weights.bytes() + mesh.basis.bytes() + faces.corner.bytes() +
           faces.inverse_rest.bytes() + gaussians.bytes() + torso_weights.bytes() + face.bytes() +
           source.size() * sizeof(int32_t) + network.anchor_bias.bytes() + network.basis.bytes() +
           network.basis_bound.bytes() + network.anchor_weight.bytes() + network.anchor_index.bytes() +
           match.weight.bytes() + match.coefficient.size() * sizeof(float);
}

}  // namespace being
