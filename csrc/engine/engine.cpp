#include "csrc/engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "csrc/engine/plate.h"
#include "csrc/engine/pose.h"

namespace being {
namespace {

constexpr int kLanes = config::kLanes, kMacro = config::kMacroTile, kDigits = 1 << config::kSortBits;
constexpr int kChunk = config::kBlocksPerChunk;

double now_milliseconds() {
    using clock = std::chrono::steady_clock;
    return std::chrono::duration<double, std::milli>(clock::now().time_since_epoch()).count();
}

}  // namespace

// ---------------------------------------------------------------- one frame

// The frame, by stage. What a stage writes, the next one reads.
void Engine::render(const FrameParams& params, const Output& output) {
    const auto share = [this](const auto& work) { pool_.share(work); };
    double started = now_milliseconds();
    int stage = 0;
    const auto done = [&] {
        const double now = now_milliseconds();
        milliseconds_[stage++] = now - started;
        started = now;
    };

    // pose
    set_output(output);
    pose(params);
    if (scene_.offset_blocks) share([&](Worker worker) { stages_.network(network_, worker); });
    match_colours();
    done();

    // skin
    if (scene_.head_blocks) {
        share([&](Worker worker) { stages_.skin(skin_, worker); });
        share([&](Worker worker) { stages_.faces(faces_, worker); });
    }
    done();

    // deform, project
    find_depth_ranges();
    next_chunk_ = 0;
    share([&](Worker worker) { stages_.deform_project(deform_, worker); });
    done();

    // sort
    count_visible();
    for (int digit = 0; digit < 2; ++digit) {
        share([&](Worker worker) { stages_.sort_count(sort_, digit, worker); });
        share([&](Worker worker) { stages_.sort_scatter(sort_, digit, worker); });
    }
    done();

    // bin
    pool_.share([&](Worker worker) { stages_.bin_count(bin_, worker); }, bin_parts_);
    place_lists();
    pool_.share([&](Worker worker) { stages_.bin_scatter(bin_, worker); }, bin_parts_);
    done();

    // rasterize, composite
    list_jobs();
    next_job_ = 0;
    share([&](Worker worker) { stages_.rasterize(rasterize_, worker); });
    done();
}

// ---------------------------------------------------------------- what the calling thread does between stages

void Engine::set_output(const Output& output) {
    rasterize_.format = output.format;
    rasterize_.plate = plate_for(output.format);
    rasterize_.background = has_background_ && output.format != Format::kRgba ? background_.data() : nullptr;
    rasterize_.pixels = output.pixels;
    rasterize_.alpha = output.alpha;
    rasterize_.depth = output.depth;
}

void Engine::pose(const FrameParams& params) {
    const Skeleton skeleton{scene_.expressions, scene_.joint_rest.data(), scene_.joint_expression.data()};
    const Pose pose = pose_joints(skeleton, params);
    write_condition(pose, params, condition_.data());
    skin_.active_count = active_coefficients(pose, params, scene_.expressions, active_.data(), coefficient_.data());
    for (int j = 0; j < config::kJoints; ++j) skin_.joint[j] = camera_.world_to_camera * pose.joint[j];

    deform_.torso_frame[0] = camera_.world_to_camera * root_frame(scene_.response, params);
    deform_.torso_frame[1] = skin_.joint[0];
    deform_.torso_frame[2] = skin_.joint[1];

    // The seam rides on the mean of the global and the neck joint's transforms.
    const auto middle = [&](const Vector3<float>& a, const Vector3<float>& b) {
        return Vector3<double>{0.5 * (a.x + b.x), 0.5 * (a.y + b.y), 0.5 * (a.z + b.z)};
    };
    const Frame3f &g = skin_.joint[0], &n = skin_.joint[1];
    const Frame3<double> carried{
        {middle(g.linear.x, n.linear.x), middle(g.linear.y, n.linear.y), middle(g.linear.z, n.linear.z)},
        middle(g.origin, n.origin)};
    const auto widen = [](const Vector3<float>& v) { return Vector3<double>{v.x, v.y, v.z}; };
    Vector3<double> axis = carried.linear * widen(scene_.seam_axis);
    axis = axis * (1 / std::max(std::sqrt(dot(axis, axis)), 1e-12));
    rasterize_.seam = make_seam_ellipse(transform(carried, widen(scene_.seam_centre)), axis, double(scene_.seam_radius),
                                        double(scene_.seam_half_height), deform_.camera);
}

// What each sector around the neck adds to the torso's colours, and the bound that lets whole blocks be culled.
void Engine::match_colours() {
    const ColourMatch& match = scene_.match;
    const PackedNetwork& network = scene_.network;
    std::copy(&match.rest_difference[0][0], &match.rest_difference[0][0] + 3 * config::kSectors, &deform_.match[0][0]);
    const float* coefficient = match.coefficient.data();
    for (int anchor : match.anchor)
        for (int k = 0; k < network.rank; ++k, coefficient += 3 * config::kSectors) {
            const float latent = latent_[size_t(anchor) * network.latent_stride + k];
            for (int i = 0; i < 3 * config::kSectors; ++i) (&deform_.match[0][0])[i] += latent * coefficient[i];
        }
    std::fill(largest_latent_.data(), largest_latent_.data() + network.latent_stride, 0.0f);
    for (int a = 0; a < network.anchors; ++a)
        for (int k = 0; k < network.latent_stride; ++k)
            largest_latent_[k] =
                std::max(largest_latent_[k], std::fabs(latent_[size_t(a) * network.latent_stride + k]));
}

// The sort key's quantised depth spans what this frame can hold: skinned vertices and how far Gaussians reach from
// them; the torso's ball under each of its frames. It depends on nothing but the frame, so neither does the picture.
void Engine::find_depth_ranges() {
    float low[2] = {3e38f, 3e38f}, high[2] = {-3e38f, -3e38f};
    for (int w = 0; w < pool_.count(); ++w) {
        low[0] = std::min(low[0], depth_range_[2 * w] - scene_.head_reach);
        high[0] = std::max(high[0], depth_range_[2 * w + 1] + scene_.head_reach);
    }
    for (const Frame3f& frame : deform_.torso_frame) {
        const Vector3<float> along{frame.linear.x.z, frame.linear.y.z, frame.linear.z.z};  // z of a step at rest
        const float z = transform(frame, scene_.torso_centre).z, reach = scene_.torso_radius * root(dot(along, along));
        low[1] = std::min(low[1], z - reach);
        high[1] = std::max(high[1], z + reach);
    }
    constexpr float kLevels = float(1 << (2 * config::kSortBits - 1));
    for (int layer = 0; layer < 2; ++layer) {
        deform_.near_depth[layer] = std::max(low[layer], config::kNear);
        deform_.depth_scale[layer] = kLevels / std::max(high[layer] - deform_.near_depth[layer], 1e-3f);
    }
}

void Engine::count_visible() {
    int visible = 0;
    for (int chunk = 0; chunk < sort_.chunks; ++chunk) visible += chunk_count_[chunk];
    sort_.visible = bin_.visible = visible;
}

// Counts per part and macro tile become first positions; the list grows where it must.
void Engine::place_lists() {
    const size_t tiles = size_t(columns_) * rows_, stride = size_t(bin_.histogram_stride);
    uint32_t total = 0;
    for (size_t tile = 0; tile < tiles; ++tile) {
        begin_[tile] = total;
        for (int part = 0; part < bin_parts_; ++part) {
            uint32_t& count = bin_histogram_[part * stride + tile];
            const uint32_t here = count;
            count = total;
            total += here;
        }
    }
    begin_[tiles] = total;
    // What has no tile goes past the end, each part to a cache line of its own.
    for (int part = 0; part < bin_parts_; ++part)
        for (size_t spare = 0; spare < 3; ++spare)
            bin_histogram_[part * stride + tiles + spare] = total + uint32_t(part + 1) * kLanes;
    list_.reserve(total + size_t(bin_parts_ + 2) * kLanes);
    bin_.list = list_.data();
    rasterize_.list = list_.data();
}

// Macro tiles with splats first, for they are the long jobs; then what is background alone.
void Engine::list_jobs() {
    const int tiles = columns_ * rows_;
    int jobs = 0;
    for (int tile = 0; tile < tiles; ++tile)
        if (begin_[size_t(tile)] != begin_[size_t(tile) + 1]) jobs_[size_t(jobs++)] = {tile, 1, false};
    for (int tile = 0; tile < tiles; ++tile) {
        if (begin_[size_t(tile)] != begin_[size_t(tile) + 1]) continue;
        TileJob* last = jobs > 0 ? &jobs_[size_t(jobs) - 1] : nullptr;
        if (last && last->empty && last->first + last->count == tile && tile % columns_ &&
            last->count < config::kEmptyRun)
            ++last->count;
        else
            jobs_[size_t(jobs++)] = {tile, 1, true};
    }
    rasterize_.job_count = jobs;
}

// ---------------------------------------------------------------- set-up

Engine::Engine(const AvatarView& avatar, int threads, const std::string& level)
    : level_(cpu::chosen_level(level)), stages_(cpu::stages(level)), scene_(pack_scene(avatar)), pool_(threads) {
    const Scene& s = scene_;
    const size_t workers = size_t(pool_.count()), slots = size_t(s.blocks) * kLanes;
    const int chunks = (s.blocks + kChunk - 1) / kChunk;

    condition_.resize(config::kCondition);
    const PackedNetwork& n = s.network;
    const auto padded = [](int count) { return size_t((count + kLanes - 1) / kLanes * kLanes); };
    network_scratch_.resize(
        workers * (padded(n.hidden0) + padded(n.hidden1) + padded(n.hidden2) + kLanes * size_t(n.latent_stride)));
    latent_.resize(size_t(n.anchors) * n.latent_stride);
    largest_latent_.resize(size_t(n.latent_stride));
    network_ = {config::kCondition,
                n.hidden0,
                n.hidden1,
                n.hidden2,
                n.rank,
                n.anchors,
                n.latent_stride,
                n.trunk_weight_0.data(),
                n.trunk_bias_0.data(),
                n.trunk_weight_1.data(),
                n.trunk_bias_1.data(),
                n.head_weight_0.data(),
                n.anchor_bias.data(),
                n.head_weight_1.data(),
                n.head_bias_1.data(),
                condition_.data(),
                network_scratch_.data(),
                latent_.data()};

    active_.resize(size_t(s.mesh.columns) + 1);
    coefficient_.resize(size_t(s.mesh.columns) + 1);
    if (s.mesh.columns == 0) {  // no head: the coefficients are still listed
        active_.resize(size_t(s.expressions) + 2 + config::kPoseFeatures + 1);
        coefficient_.resize(active_.size());
    }
    vertices_.resize(size_t(s.mesh.blocks) * 3 * kLanes);
    depth_range_.resize(2 * workers);
    skin_.blocks = s.mesh.blocks;
    skin_.columns = s.mesh.columns;
    skin_.rest = s.mesh.rest.data();
    skin_.basis = s.mesh.basis.data();
    skin_.weights = s.mesh.weights.data();
    skin_.active = active_.data();
    skin_.coefficient = coefficient_.data();
    skin_.vertices = vertices_.data();
    skin_.depth_range = depth_range_.data();

    frames_.resize(size_t(s.faces.blocks) * kLanes * kLanes);
    faces_ = {s.faces.blocks,        s.mesh.blocks * kLanes,      vertices_.data(),
              s.faces.corner.data(), s.faces.inverse_rest.data(), frames_.data()};

    splats_.resize(slots * kSplatRows);
    box_.resize(slots);
    key_.resize(size_t(chunks) * kChunk * kLanes);
    id_.resize(key_.size());
    chunk_count_.resize(size_t(chunks));
    DeformStage& d = deform_;
    d.offset_blocks = s.offset_blocks;
    d.head_blocks = s.head_blocks;
    d.blocks = s.blocks;
    d.gaussians = s.gaussians.data();
    d.face = s.face.data();
    d.frames = frames_.data();
    d.rank = n.rank;
    d.latent_stride = n.latent_stride;
    d.basis = n.basis.data();
    d.basis_begin = n.basis_begin.data();
    d.basis_channels = n.basis_channels.data();
    d.basis_bound = n.basis_bound.data();
    d.anchor_begin = n.anchor_begin.data();
    d.anchor_index = n.anchor_index.data();
    d.anchor_weight = n.anchor_weight.data();
    d.latent = latent_.data();
    d.largest_latent = largest_latent_.data();
    d.torso_weights = s.torso_weights.data();
    d.matched_blocks = s.match.matched_blocks;
    d.match_weight = s.match.weight.data();
    d.antialiased = s.antialiased;
    d.next_chunk = &next_chunk_;
    d.splats = splats_.data();
    d.box = box_.data();
    d.key = key_.data();
    d.id = id_.data();
    d.chunk_count = chunk_count_.data();

    sort_histogram_.resize(2 * workers * kDigits);
    halfway_.resize(slots + kLanes);
    order_.resize(slots + kLanes);
    sort_ = {chunks,
             kChunk * kLanes,
             chunk_count_.data(),
             key_.data(),
             id_.data(),
             sort_histogram_.data(),
             halfway_.data(),
             box_.data(),
             order_.data(),
             0};

    rasterize_.splats = splats_.data();
    rasterize_.torso_begin = uint32_t(s.head_blocks) * kLanes;
    rasterize_.inverse_softness = 1.0f / std::max(s.depth_softness, 1e-6f);
    rasterize_.next_job = &next_job_;
}

void Engine::set_camera(const Camera& camera) {
    camera_ = camera;
    columns_ = (camera.width + kMacro - 1) / kMacro;
    rows_ = (camera.height + kMacro - 1) / kMacro;
    const size_t tiles = size_t(columns_) * rows_;
    deform_.camera = make_intrinsics(camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height);
    deform_.width = rasterize_.width = camera.width;
    deform_.height = rasterize_.height = camera.height;
    const int stride = int(tiles) + 3 + kLanes;
    bin_parts_ = pool_.count() == 1 ? 1 : pool_.count() * config::kBinParts;
    bin_histogram_.resize(size_t(bin_parts_) * stride);
    begin_.resize(tiles + 1);
    jobs_.resize(tiles);
    bin_ = {columns_, rows_, 0, order_.data(), bin_histogram_.data(), stride, begin_.data(), list_.data()};
    rasterize_.columns = columns_;
    rasterize_.rows = rows_;
    rasterize_.begin = begin_.data();
    rasterize_.jobs = jobs_.data();
}

void Engine::set_background(const uint8_t* rgb) {
    const int width = camera_.width, height = camera_.height;
    has_background_ = rgb != nullptr;
    std::fill(plate_made_, plate_made_ + 3, false);
    background_.resize(has_background_ ? size_t(columns_) * rows_ * kMacro * kMacro * 4 : 0);
    if (!has_background_) return;
    for (int y = 0; y < height; ++y) {
        const uint8_t* from = rgb + size_t(y) * width * 3;
        uint8_t* to = background_.data() + size_t(y) * columns_ * kMacro * 4;
        for (int x = 0; x < width; ++x) std::copy(from + 3 * x, from + 3 * x + 3, to + 4 * x);
    }
}

// The background in an output's format, made when first asked for.
const uint8_t* Engine::plate_for(Format format) {
    Buffer<uint8_t>& plate = plate_[int(format)];
    if (plate_made_[int(format)]) return plate.data();
    plate.resize(plate_bytes(format, camera_.width, camera_.height));
    make_plate(format, camera_.width, camera_.height, has_background_ ? background_.data() : nullptr,
               size_t(columns_) * kMacro * 4, plate.data());
    plate_made_[int(format)] = true;
    return plate.data();
}

// ---------------------------------------------------------------- what others ask

std::vector<Splat> Engine::splats() const {
    int heads = 0, all = 0;
    for (size_t slot = 0; slot < scene_.source.size(); ++slot) {
        all += scene_.source[slot] >= 0;
        heads += scene_.source[slot] >= 0 && slot < size_t(scene_.head_blocks) * kLanes;
    }
    std::vector<Splat> result(size_t(all), Splat{});
    for (int i = 0; i < sort_.visible; ++i) {
        const uint32_t id = uint32_t(order_[size_t(i)]);
        const int32_t source = scene_.source[id];
        Splat& splat = result[size_t(source) + (id >= rasterize_.torso_begin ? size_t(heads) : 0)];
        splat.visible = true;
        std::copy(&splats_[size_t(id) * kSplatRows], &splats_[size_t(id) * kSplatRows] + kSplatRows, splat.values);
    }
    return result;
}

size_t Engine::bytes() const {
    size_t total = scene_.bytes();
    const auto add = [&](const auto&... buffer) { total += (buffer.bytes() + ...); };
    add(condition_, network_scratch_, latent_, largest_latent_, vertices_, depth_range_, frames_, splats_, coefficient_,
        chunk_count_, active_, box_, key_, id_, sort_histogram_, order_, bin_histogram_, begin_, list_, halfway_,
        background_, plate_[0], plate_[1], plate_[2]);
    return total;
}

}  // namespace being
