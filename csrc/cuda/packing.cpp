#include "csrc/cuda/packing.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "csrc/engine/scene.h"

namespace being::cuda {
namespace {

constexpr int kLanes = config::kLanes;

// Where each place of the device's order comes from in the host's packed scene; -1: padding. Groups hold one kind only.
struct Order {
    std::vector<int32_t> slot;
    int ends[4];  // of the kinds, in groups
};

// Where a packed place's Gaussian is at rest, as far as neighbourhood goes: a head's at its point of the mesh.
Vector3<float> rest_place(const AvatarView& avatar, const Scene& scene, int32_t slot) {
    const int32_t i = scene.source[size_t(slot)];
    if (slot >= scene.head_blocks * kLanes)
        return {avatar.torso.position[3 * i], avatar.torso.position[3 * i + 1], avatar.torso.position[3 * i + 2]};
    const int32_t* corner = avatar.rig.face + 3 * avatar.head_face[i];
    float p[3];
    for (int a = 0; a < 3; ++a) {
        p[a] = 0;
        for (int c = 0; c < 3; ++c) p[a] += avatar.head_barycentric[3 * i + c] * avatar.rig.rest[3 * corner[c] + a];
    }
    return {p[0], p[1], p[2]};
}

// The area that a Gaussian covers at most: the product of its two largest standard deviations, square metres.
float area_of(const AvatarView& avatar, const Scene& scene, int32_t slot) {
    const int32_t i = scene.source[size_t(slot)];
    const GaussiansView& g = slot >= scene.head_blocks * kLanes ? avatar.torso : avatar.head;
    const float* s = g.log_scale + 3 * i;
    return std::exp(s[0] + s[1] + s[2] - std::min({s[0], s[1], s[2]}));
}

struct Extent {
    float low[3] = {1e30f, 1e30f, 1e30f}, high[3] = {-1e30f, -1e30f, -1e30f};
    void add(const Vector3<float>& p) {
        const float at[3] = {p.x, p.y, p.z};
        for (int a = 0; a < 3; ++a) {
            low[a] = std::min(low[a], at[a]);
            high[a] = std::max(high[a], at[a]);
        }
    }
    float size() const { return std::max({high[0] - low[0], high[1] - low[1], high[2] - low[2]}); }
};

float median(std::vector<float> values) {
    if (values.empty()) return 0;
    const auto middle = values.begin() + std::ptrdiff_t(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// The host's order follows a space-filling curve, which jumps now and then: a group that held both sides of a jump
// would reach across half the picture. And a group of nothing but large splats would keep its warp busy long after all
// others: so many lists each of them reaches. So a new group begins at a jump, and where the sum of areas would be many
// times that of an ordinary group.
Order make_order(const AvatarView& avatar, const Scene& scene) {
    constexpr float kLargestJump = 3, kLargestArea = 3;  // times the median group's
    const int host_ends[4] = {scene.offset_blocks, scene.head_blocks, scene.head_blocks + scene.match.matched_blocks,
                              scene.blocks};
    std::vector<float> sizes, areas;
    Extent extent;
    int members = 0;
    for (int32_t slot = 0; slot < scene.blocks * kLanes; ++slot) {
        if (scene.source[size_t(slot)] < 0) continue;
        extent.add(rest_place(avatar, scene, slot));
        areas.push_back(area_of(avatar, scene, slot));
        if (++members < kWarp) continue;
        sizes.push_back(extent.size());
        extent = Extent();
        members = 0;
    }
    const float largest = sizes.empty() ? 1e30f : kLargestJump * median(sizes);
    const float largest_area = kLargestArea * kWarp * median(areas);

    Order order;
    int32_t slot = 0;
    for (int kind = 0; kind < 4; ++kind) {
        const auto close = [&] { order.slot.resize((order.slot.size() + kWarp - 1) / kWarp * kWarp, -1); };
        float area = 0;
        for (extent = Extent(); slot < host_ends[kind] * kLanes; ++slot) {
            if (scene.source[size_t(slot)] < 0) continue;
            const Vector3<float> p = rest_place(avatar, scene, slot);
            const float own = area_of(avatar, scene, slot);
            extent.add(p);
            area += own;
            if (order.slot.size() % kWarp == 0 || extent.size() > largest || area > largest_area) {
                close();
                extent = Extent();
                extent.add(p);
                area = own;
            }
            order.slot.push_back(slot);
        }
        close();
        order.ends[kind] = int(order.slot.size() / kWarp);
    }
    return order;
}

template <class T>
std::vector<T> to_vector(const Buffer<T>& buffer) {
    return std::vector<T>(buffer.data(), buffer.data() + buffer.size());
}

void pack_gaussians(const Scene& scene, const Order& order, DeviceScene& out) {
    static_assert(int(kGroupRows) == int(being::kGaussianRows), "the same rows, in another order");
    std::vector<float> rows(order.slot.size() * kGroupRows);
    for (size_t n = 0; n < order.slot.size(); ++n) {
        const int32_t slot = order.slot[n];
        float* to = rows.data() + n / kWarp * kGroupRows * kWarp + n % kWarp;
        const auto put = [&](int row, int count, int host_row) {
            for (int k = 0; k < count; ++k)
                to[(row + k) * kWarp] =
                    scene.gaussians[(size_t(slot) / kLanes * being::kGaussianRows + host_row + k) * kLanes +
                                    slot % kLanes];
        };
        if (slot < 0) {  // never visible: an opacity of 0, as a logit where logits are stored
            to[kRotation * kWarp] = 1;
            to[kOpacity * kWarp] = n / kWarp < size_t(order.ends[0]) ? -1e3f : 0.0f;
            continue;
        }
        put(kPosition, 3, being::kPosition);
        put(kRotation, 4, being::kRotation);
        put(kUnfading, 1, being::kUnfading);
        put(kScale, 3, being::kScale);
        put(kOpacity, 1, being::kOpacity);
        put(kColour, 3, being::kColour);
    }
    out.gaussians.upload(rows);
}

// Lane j of the eight that share a vertex has columns 18 j .. 18 j + 17, three axes each, in seven chunks of 8 halves.
void pack_skin(const Scene& scene, DeviceScene& out) {
    const SkinMesh& mesh = scene.mesh;
    out.vertices = mesh.vertices;
    if (mesh.vertices == 0) return;
    const size_t fours = size_t(mesh.vertices + 3) / 4;
    std::vector<Half> basis(fours * kSkinChunks * kWarp * 8);
    std::vector<float4> rest(size_t(mesh.vertices));
    std::vector<float> weights(size_t(mesh.vertices) * kSkinLanes);
    for (int v = 0; v < mesh.vertices; ++v) {
        const size_t block = size_t(v / kLanes), lane = size_t(v % kLanes);
        const auto at = [&](const Buffer<float>& values, int rows, int row) {
            return values[(block * rows + row) * kLanes + lane];
        };
        rest[size_t(v)] = {at(mesh.rest, 3, 0), at(mesh.rest, 3, 1), at(mesh.rest, 3, 2), 0.0f};
        for (int j = 0; j < config::kJoints; ++j)
            weights[size_t(v) * kSkinLanes + j] = at(mesh.weights, config::kJoints, j);
        for (int c = 0; c < mesh.columns; ++c)
            for (int a = 0; a < 3; ++a) {
                const int j = c / kSkinColumnsPerLane, h = c % kSkinColumnsPerLane * 3 + a;
                basis[((size_t(v / 4) * kSkinChunks + h / 8) * kWarp + v % 4 * kSkinLanes + j) * 8 + h % 8] =
                    mesh.basis[((block * mesh.columns + c) * 3 + a) * kLanes + lane];
            }
    }
    out.skin_basis.upload(reinterpret_cast<const uint4*>(basis.data()), basis.size() / 8);
    out.rest.upload(rest);
    out.skin_weights.upload(weights);
}

void pack_faces(const Scene& scene, const Order& order, DeviceScene& out) {
    std::vector<Face> faces(size_t(scene.faces.blocks) * kLanes);
    for (size_t f = 0; f < faces.size(); ++f) {
        const size_t block = f / kLanes, lane = f % kLanes;
        for (int c = 0; c < 3; ++c) faces[f].corner[c] = scene.faces.corner[(block * 3 + c) * kLanes + lane];
        for (int k = 0; k < 4; ++k)
            faces[f].inverse_rest[k] = scene.faces.inverse_rest[(block * 4 + k) * kLanes + lane];
    }
    out.faces.upload(faces);
    std::vector<int32_t> face(size_t(order.ends[1]) * kWarp);
    for (size_t n = 0; n < face.size(); ++n)
        face[n] = order.slot[n] >= 0 ? scene.face[size_t(order.slot[n])] : n > 0 ? face[n - 1] : 0;
    out.face.upload(face);
}

void pack_network(const Scene& scene, const Order& order, const NetworkView& view, DeviceScene& out) {
    const PackedNetwork& n = scene.network;
    const auto padded = [](int count) { return (count + kLanes - 1) / kLanes * kLanes; };
    out.hidden0 = padded(n.hidden0);
    out.hidden1 = padded(n.hidden1);
    out.hidden2 = padded(n.hidden2);
    out.hidden2_unpadded = n.hidden2;
    if (std::max({out.hidden0, out.hidden1, out.hidden2}) > 256)
        throw std::invalid_argument(
            "the offset network has a hidden layer of more than 256 neurons, which the CUDA "
            "renderer does not draw; use device='cpu'");
    out.anchors = n.anchors;
    out.rank = padded_rank(n.rank);
    out.trunk_weight_0.upload(to_vector(n.trunk_weight_0));
    out.trunk_bias_0.upload(to_vector(n.trunk_bias_0));
    // Rows of zeros for the padding of the layer before, so that a layer may read all of it.
    const auto padded_rows = [&](const Buffer<float>& weight, int rows, int columns) {
        std::vector<float> values(size_t(rows) * columns, 0.0f);
        std::copy_n(weight.data(), std::min(weight.size(), values.size()), values.data());
        return values;
    };
    out.trunk_weight_1.upload(padded_rows(n.trunk_weight_1, out.hidden0, out.hidden1));
    out.trunk_bias_1.upload(to_vector(n.trunk_bias_1));
    out.head_weight_0.upload(padded_rows(n.head_weight_0, out.hidden1, out.hidden2));
    out.anchor_bias.upload(to_vector(n.anchor_bias));
    std::vector<float> weight(size_t(n.hidden2) * out.rank), bias(size_t(out.rank));
    for (int k = 0; k < n.rank; ++k) {
        for (int j = 0; j < n.hidden2; ++j)
            weight[size_t(j) * out.rank + k] = n.head_weight_1[size_t(j) * n.latent_stride + k];
        bias[size_t(k)] = n.head_bias_1[size_t(k)];
    }
    out.head_weight_1.upload(weight);
    out.head_bias_1.upload(bias);

    const size_t places = size_t(order.ends[0]) * kWarp, per_gaussian = size_t(config::kChannels) * n.rank;
    std::vector<uint2> index(places);
    std::vector<float4> share(places);
    std::vector<uint32_t> begin, channels(size_t(order.ends[0]));
    std::vector<float> bound(size_t(order.ends[0]) * 2 * out.rank);
    std::vector<Half> stored;
    for (int group = 0; group < order.ends[0]; ++group) {
        begin.push_back(uint32_t(stored.size() / (size_t(out.rank) * kWarp)));
        int32_t source[kWarp];
        for (int lane = 0; lane < kWarp; ++lane) {
            const size_t place = size_t(group) * kWarp + lane;
            const int32_t slot = order.slot[place], i = source[lane] = slot < 0 ? -1 : scene.source[size_t(slot)];
            if (i < 0) continue;
            const uint16_t* a = view.anchor_index + 4 * size_t(i);
            index[place] = {uint32_t(a[0]) | uint32_t(a[1]) << 16, uint32_t(a[2]) | uint32_t(a[3]) << 16};
            const float* w = view.anchor_weight + 4 * size_t(i);
            share[place] = {w[0], w[1], w[2], w[3]};
            // The host's bound is per block of 16; this group's is the larger of its two.
            const float* from = n.basis_bound.data() + size_t(slot / kLanes) * 2 * n.latent_stride;
            for (int kind = 0; kind < 2; ++kind)
                for (int k = 0; k < n.rank; ++k) {
                    float& to = bound[(size_t(group) * 2 + kind) * out.rank + k];
                    to = std::max(to, from[kind * n.latent_stride + k]);
                }
        }
        for (int channel = 0; channel < config::kChannels; ++channel) {
            std::vector<Half> rows(size_t(out.rank) * kWarp, 0);
            bool used = false;
            for (int lane = 0; lane < kWarp; ++lane)
                for (int k = 0; source[lane] >= 0 && k < n.rank; ++k) {
                    const Half value = view.basis[size_t(source[lane]) * per_gaussian + size_t(channel) * n.rank + k];
                    rows[(size_t(k / 4) * kWarp + lane) * 4 + k % 4] = value;
                    used |= (value & 0x7fff) != 0;
                }
            if (!used) continue;
            channels[size_t(group)] |= 1u << channel;
            stored.insert(stored.end(), rows.begin(), rows.end());
        }
    }
    out.basis.upload(reinterpret_cast<const uint2*>(stored.data()), stored.size() / 4);
    out.basis_begin.upload(begin);
    out.basis_channels.upload(channels);
    out.basis_bound.upload(bound);
    out.anchor_index.upload(index);
    out.anchor_weight.upload(share);
}

void pack_match(const Scene& scene, const Order& order, DeviceScene& out) {
    const ColourMatch& match = scene.match;
    const int rank = scene.network.rank;
    // The host has [anchor that the band mixes][rank][sector][3].
    std::vector<float> coefficient(size_t(out.anchors) * out.rank * kMatchValues);
    std::vector<uint8_t> used(size_t(out.anchors) / 16);
    for (size_t a = 0; a < match.anchor.size(); ++a) {
        used[size_t(match.anchor[a]) / 16] = 1;
        std::copy_n(match.coefficient.data() + a * rank * kMatchValues, size_t(rank) * kMatchValues,
                    coefficient.data() + size_t(match.anchor[a]) * out.rank * kMatchValues);
    }
    out.match_coefficient.upload(coefficient);
    out.match_used.upload(used);
    out.match_rest.upload(&match.rest_difference[0][0], size_t(config::kSectors) * 3);
    const int first = order.ends[1], groups = order.ends[2] - first;
    std::vector<float> weight(size_t(groups) * config::kSectors * kWarp);
    for (size_t n = 0; n < size_t(groups) * kWarp; ++n) {
        const int32_t slot = order.slot[size_t(first) * kWarp + n];
        if (slot < 0) continue;
        const size_t from = size_t(slot) - size_t(scene.head_blocks) * kLanes;
        for (int sector = 0; sector < config::kSectors; ++sector)
            weight[(n / kWarp * config::kSectors + sector) * kWarp + n % kWarp] =
                match.weight[(from / kLanes * config::kSectors + sector) * kLanes + from % kLanes];
    }
    out.match_weight.upload(weight);
}

void pack_torso(const Scene& scene, const Order& order, DeviceScene& out) {
    const size_t first = size_t(order.ends[1]) * kWarp, places = order.slot.size() - first;
    std::vector<float> weights(places * 3);
    for (size_t n = 0; n < places; ++n) {
        const int32_t slot = order.slot[first + n];
        if (slot < 0) continue;
        const size_t from = size_t(slot) - size_t(scene.head_blocks) * kLanes;
        for (int k = 0; k < 3; ++k)
            weights[(n / kWarp * 3 + k) * kWarp + n % kWarp] =
                scene.torso_weights[(from / kLanes * 3 + k) * kLanes + from % kLanes];
    }
    out.torso_weights.upload(weights);
}

}  // namespace

DeviceScene upload_scene(const AvatarView& avatar) {
    const Scene scene = pack_scene(avatar);
    const Order order = make_order(avatar, scene);
    DeviceScene out;
    out.offset_groups = order.ends[0];
    out.head_groups = order.ends[1];
    out.matched_groups = order.ends[2];
    out.groups = order.ends[3];
    out.head_count = avatar.head.count;
    out.torso_count = avatar.torso.count;
    for (const int32_t slot : order.slot) out.source.push_back(slot < 0 ? -1 : scene.source[size_t(slot)]);
    out.joint_rest.upload(scene.joint_rest);
    out.joint_expression.upload(scene.joint_expression);
    out.seam_centre = scene.seam_centre;
    out.seam_axis = scene.seam_axis;
    out.seam_radius = scene.seam_radius;
    out.seam_half_height = scene.seam_half_height;
    out.depth_softness = scene.depth_softness;
    out.antialiased = scene.antialiased;
    out.response = scene.response;
    pack_gaussians(scene, order, out);
    if (out.head_groups > 0) {
        pack_skin(scene, out);
        pack_faces(scene, order, out);
    }
    out.rank = padded_rank(0);
    if (out.offset_groups > 0) pack_network(scene, order, avatar.network, out);
    pack_match(scene, order, out);
    pack_torso(scene, order, out);
    return out;
}

size_t DeviceScene::skin_bytes() const {
    return skin_basis.bytes() + rest.bytes() + skin_weights.bytes() + anchor_bias.bytes() + head_weight_1.bytes();
}

size_t DeviceScene::deform_bytes() const {
    return gaussians.bytes() + face.bytes() + basis.bytes() + basis_bound.bytes() + anchor_index.bytes() +
           anchor_weight.bytes() + torso_weights.bytes() + match_weight.bytes();
}

size_t DeviceScene::bytes() const {
    return skin_bytes() + deform_bytes() + faces.bytes() + joint_rest.bytes() + joint_expression.bytes() +
           trunk_weight_0.bytes() + trunk_bias_0.bytes() + trunk_weight_1.bytes() + trunk_bias_1.bytes() +
           head_weight_0.bytes() + head_bias_1.bytes() + basis_begin.bytes() + basis_channels.bytes() +
           match_used.bytes() + match_coefficient.bytes() + match_rest.bytes();
}

}  // namespace being::cuda
