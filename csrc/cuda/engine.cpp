#include "csrc/cuda/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "csrc/cuda/nvtx.h"
#include "csrc/engine/plate.h"
#include "csrc/engine/pose.h"

namespace being::cuda {
namespace {

// Entries that a list has room for at first: several times what a person at 1080p takes; see grow_lists.
constexpr int kFirstCapacity = 128;

// Keys of long lists that there is room for, per Gaussian; without room, such lists are drawn more slowly.
constexpr size_t kSpillPerGaussian = 8;

int parts(int pixels, int size) {
    return (pixels + size - 1) / size;
}

// Where a frame, counted from 1, has its parameters, its report and its event.
size_t slot_of(uint64_t frame) {
    return size_t((frame - 1) % kInputSlots);
}

}  // namespace

// ---------------------------------------------------------------- one frame

// The frame, by stage. What a stage writes, the next one reads.
void Engine::launch_stages(Format format, cudaStream_t stream) {
    const bool timed = !stage_event_.empty();
    int stage = 0;
    const auto done = [&] {
        if (timed) check(cudaEventRecord(stage_event_[size_t(stage)], stream), "recording an event");
        ++stage;
    };
    done();
    {
        const Range range("pose");
        launch_pose(pose_.array(), stream);
        done();
    }
    {
        const Range range("skin");
        launch_skin(skin_.array(), most_vertices_, stream);
        done();
    }
    {
        const Range range("deform+project+bin");
        launch_deform_project(deform_.array(), most_groups_, rank_, stream);
        done();
    }
    {
        const Range range("sort+rasterize+composite");
        launch_rasterize(rasterize_.array(), blocks_, format, stream);
        done();
    }
    check(cudaGetLastError(), "launching a frame");
}

void Engine::launch(Format format, cudaStream_t stream) {
    if (!use_graph_) return launch_stages(format, stream);
    cudaGraphExec_t& graph = graph_[int(format)];
    if (!graph) graph = make_graph(format);
    check(cudaGraphLaunch(graph, stream), "launching a frame's graph");
}

uint64_t Engine::submit(const FrameParams* params, const Output& output, cudaStream_t stream) {
    const Range range("frame");
    const OnDevice on_device(info_.index);
    if (!stream) stream = own_stream_;
    check_stream(stream);
    const uint64_t frame = frames_ + 1;
    wait_for_slot(frame);
    follow(stream);
    if (output.buffer && output.buffer->copying)
        check(cudaStreamWaitEvent(stream, output.buffer->copied, 0), "waiting for a copy");

    const size_t slot = slot_of(frame);
    const size_t bytes = picture_bytes(output.format), area = size_t(width_) * height_;
    for (size_t i = 0; i < sessions_.size(); ++i) {
        const Session& session = sessions_[i];
        const FrameParams& p = params[i];
        FrameInput& in = sessions_[i].input[slot];
        std::copy_n(p.expression, kExpressions, in.expression);
        std::copy_n(p.rotation, 3, in.rotation);
        std::copy_n(p.neck, 3, in.neck);
        std::copy_n(p.jaw, 3, in.jaw);
        std::copy_n(p.eyes, 6, in.eyes);
        std::copy_n(p.translation, 3, in.translation);
        std::copy_n(p.eyelids, 2, in.eyelids);
        in.world_to_camera = session.camera.world_to_camera;
        in.root = root_frame(session.scene->response, p);
        const Camera& c = session.camera;
        in.camera = make_intrinsics(c.fx, c.fy, c.cx, c.cy, c.width, c.height);
        in.pixels = output.pixels + i * bytes;
        in.alpha = output.alpha ? output.alpha + i * area : nullptr;
        in.depth = output.depth ? output.depth + i * area : nullptr;
    }
    return start(output.format, stream);
}

// Puts the next frame, whose parameters lie in its slot, on a stream, and returns its number.
uint64_t Engine::start(Format format, cudaStream_t stream) {
    const uint64_t frame = frames_ + 1;
    const size_t slot = slot_of(frame);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    launch(format, stream);
    check(cudaEventRecord(done_[slot], stream), "recording an event");
    frames_ = frame;
    last_stream_ = stream;
    submitted_[slot] = {frame, stream, format};
    redrawn_[slot] = 0;
    return frame;
}

// The slot that `frame` takes is free once the frame that had it before has read it, which it has when it reports.
void Engine::wait_for_slot(uint64_t frame) {
    if (frame <= kInputSlots) return;
    const uint64_t before = frame - kInputSlots;
    const size_t slot = slot_of(before);
    for (const Session& session : sessions_) {
        const volatile FrameStatus* status = session.status.data() + slot;
        const auto started = std::chrono::steady_clock::now();
        while (status->frame != uint32_t(before)) {
            // A device that fell over never reports.
            if (std::chrono::steady_clock::now() - started > std::chrono::milliseconds(50)) {
                check(cudaEventSynchronize(done_[slot]), "drawing a frame");
                break;
            }
        }
    }
    if (submitted_[slot].frame == before && redrawn_[slot] == 0)
        if (const uint32_t needed = lists_needed(before)) {  // nobody waited for it; it was not drawn
            ++lost_frames_;
            lost_[lost_frames_ % lost_.size()] = before;
            grow_lists(needed);
        }
}

// Work on another stream than the last one's comes after it: both use the same buffers.
void Engine::follow(cudaStream_t stream) {
    if (!last_stream_ || last_stream_ == stream) return;
    check(cudaStreamWaitEvent(stream, done_[slot_of(frames_)], 0), "following another stream");
}

void Engine::check_stream(cudaStream_t stream) {
    if (stream == checked_stream_ || stream == own_stream_) return;
    int device = -1;
#if CUDART_VERSION >= 12080
    check(cudaStreamGetDevice(stream, &device), "looking at the caller's stream");
    if (device != info_.index)
        throw DeviceFault("the stream is of CUDA device " + std::to_string(device) + ", the renderer is on device " +
                          std::to_string(info_.index) + "; pass a stream of the renderer's device");
#else
    (void)device;
#endif
    checked_stream_ = stream;
}

uint32_t Engine::lists_needed(uint64_t frame) const {
    uint32_t needed = 0;
    for (const Session& session : sessions_) {
        const FrameStatus& status = session.status[slot_of(frame)];
        if (status.frame == uint32_t(frame)) needed = std::max(needed, status.segments_needed);
    }
    return needed;
}

bool Engine::wait(uint64_t frame) {
    const Range range("wait");
    const OnDevice on_device(info_.index);
    const size_t slot = slot_of(frame);
    if (std::find(lost_.begin(), lost_.end(), frame) != lost_.end() && frame != 0)
        throw DeviceFault("frame " + std::to_string(frame) +
                          " was not drawn: its lists overflowed, and later frames took its place before anyone waited "
                          "for it; draw it again");
    if (frame == 0 || submitted_[slot].frame != frame) return false;  // long complete
    bool redrawn = redrawn_[slot] != 0;
    uint64_t drawn = redrawn ? redrawn_[slot] : frame;
    for (;;) {
        const size_t drawn_slot = slot_of(drawn);
        check(cudaEventSynchronize(done_[drawn_slot]), "drawing a frame");
        if (submitted_[drawn_slot].frame != drawn) return redrawn;
        const uint32_t needed = lists_needed(drawn);
        if (!needed) return redrawn;
        grow_lists(needed);
        const uint64_t again = frames_ + 1;
        wait_for_slot(again);
        for (Session& session : sessions_) session.input[slot_of(again)] = session.input[drawn_slot];
        const Submitted before = submitted_[drawn_slot];
        follow(before.stream);
        redrawn_[slot] = drawn = start(before.format, before.stream);
        redrawn = true;
    }
}

void Engine::copy_to_host(uint64_t frame, OutputBuffer& buffer, void* to, size_t bytes) {
    const OnDevice on_device(info_.index);
    const size_t slot = slot_of(frame);
    if (submitted_[slot].frame == frame) {
        const uint64_t drawn = redrawn_[slot] ? redrawn_[slot] : frame;
        check(cudaStreamWaitEvent(copy_stream_, done_[slot_of(drawn)], 0), "ordering a copy");
    }
    check(cudaMemcpyAsync(to, buffer.pixels.data(), bytes, cudaMemcpyDeviceToHost, copy_stream_),
          "copying a frame to the host");
    check(cudaEventRecord(buffer.copied, copy_stream_), "recording an event");
    buffer.copying = true;
}

void Engine::wait_for_copy(OutputBuffer& buffer) {
    const OnDevice on_device(info_.index);
    if (buffer.copying) check(cudaEventSynchronize(buffer.copied), "copying a frame to the host");
    buffer.copying = false;
}

// ---------------------------------------------------------------- capacity and graphs

// Half as much again as was needed: what moves next is most often a little more of the same.
void Engine::grow_lists(uint32_t needed) {
    check(cudaDeviceSynchronize(), "finishing frames before lists grow");
    const int capacity = std::min(std::max(int(needed) + int(needed) / 2, list_capacity_), std::max(most_groups_, 1));
    if (capacity <= list_capacity_ && needed <= uint32_t(list_capacity_)) return;
    std::vector<DeviceArray<uint2>> lists;
    for (size_t i = 0; i < sessions_.size(); ++i) lists.emplace_back(size_t(columns_) * rows_ * capacity);
    for (size_t i = 0; i < sessions_.size(); ++i) sessions_[i].list = std::move(lists[i]);
    list_capacity_ = capacity;
    write_stages();
    drop_graphs();
}

cudaGraphExec_t Engine::make_graph(Format format) {
    const Stream capture;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    check(cudaStreamBeginCapture(capture, cudaStreamCaptureModeThreadLocal), "capturing a frame");
    try {
        launch_stages(format, capture);
    } catch (...) {
        cudaStreamEndCapture(capture, &graph);
        if (graph) cudaGraphDestroy(graph);
        throw;
    }
    check(cudaStreamEndCapture(capture, &graph), "capturing a frame");
    const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "making a frame's graph");
    return exec;
}

void Engine::drop_graphs() {
    for (cudaGraphExec_t& graph : graph_) {
        if (graph) cudaGraphExecDestroy(graph);
        graph = nullptr;
    }
}

// ---------------------------------------------------------------- set-up

Engine::Engine(const std::vector<AvatarView>& avatars, const std::vector<int>& sessions, int width, int height,
               int device, bool graph)
    : info_(usable_device(device)),
      width_(width),
      height_(height),
      columns_(parts(width, config::kListSize)),
      rows_(parts(height, config::kListSize)),
      blocks_(parts(columns_, kBlockColumns) * parts(rows_, kBlockRows)),
      use_graph_(graph) {
    for (const AvatarView& avatar : avatars) {
        scenes_.push_back(std::make_unique<DeviceScene>(upload_scene(avatar)));
        const DeviceScene& s = *scenes_.back();
        most_vertices_ = std::max(most_vertices_, s.vertices);
        most_groups_ = std::max(most_groups_, s.groups);
        if (rank_ && s.offset_groups && s.rank != rank_)
            throw std::invalid_argument("avatars drawn together need offset networks of one rank, got " +
                                        std::to_string(rank_) + " and " + std::to_string(s.rank));
        if (s.offset_groups) rank_ = s.rank;
    }
    if (!rank_) rank_ = padded_rank(0);
    list_capacity_ = std::min(std::max(most_groups_, 1), kFirstCapacity);
    const size_t lists = size_t(columns_) * rows_;
    for (const int index : sessions) {
        Session session;
        const DeviceScene& s = *scenes_[size_t(index)];
        session.scene = &s;
        session.camera = {};
        session.state.resize(1);
        session.posed.resize(size_t(s.vertices));
        session.latent.resize(size_t(s.anchors) * s.rank);
        session.depth.resize(size_t(s.groups) * kWarp);
        session.splats.resize(size_t(s.groups) * kWarp);
        session.list_count.resize(lists);
        session.list.resize(lists * size_t(list_capacity_));
        session.match.resize(size_t(s.anchors) / 16 * kMatchValues);
        session.cost.resize(size_t(blocks_));
        session.order.resize(size_t(blocks_));
        session.spill.resize(size_t(s.groups) * kWarp * kSpillPerGaussian);
        session.frame.resize(1);
        session.input.resize(kInputSlots);
        session.status.resize(kInputSlots);
        set_plates(session, nullptr);
        sessions_.push_back(std::move(session));
    }
    for (int i = 0; i < kInputSlots; ++i) done_.emplace_back();
    if (!graph)
        for (int i = 0; i <= kStageCount; ++i) stage_event_.emplace_back(true);
    write_stages();
}

Engine::~Engine() {
    for (const Event& done : done_) cudaEventSynchronize(done);
    drop_graphs();
}

void Engine::write_stages() {
    std::vector<PoseStage> pose;
    std::vector<SkinStage> skin;
    std::vector<DeformStage> deform;
    std::vector<RasterizeStage> rasterize;
    for (Session& session : sessions_) {
        const DeviceScene& scene = *session.scene;
        FrameInput* input = nullptr;
        FrameStatus* status = nullptr;
        check(cudaHostGetDevicePointer(reinterpret_cast<void**>(&input), session.input.data(), 0), "mapping memory");
        check(cudaHostGetDevicePointer(reinterpret_cast<void**>(&status), session.status.data(), 0), "mapping memory");

        PoseStage p{};
        p.joint_rest = scene.joint_rest.data();
        p.joint_expression = scene.joint_expression.data();
        p.seam_centre = scene.seam_centre;
        p.seam_axis = scene.seam_axis;
        p.seam_radius = scene.seam_radius;
        p.seam_half_height = scene.seam_half_height;
        p.hidden0 = scene.hidden0;
        p.hidden1 = scene.hidden1;
        p.hidden2 = scene.hidden2;
        p.trunk_weight_0 = scene.trunk_weight_0.data();
        p.trunk_bias_0 = scene.trunk_bias_0.data();
        p.trunk_weight_1 = scene.trunk_weight_1.data();
        p.trunk_bias_1 = scene.trunk_bias_1.data();
        p.head_weight_0 = scene.head_weight_0.data();
        p.input = input;
        p.frame = session.frame.data();
        p.state = session.state.data();
        pose.push_back(p);

        SkinStage k{};
        k.vertices = scene.vertices;
        k.basis = scene.skin_basis.data();
        k.rest = scene.rest.data();
        k.weights = scene.skin_weights.data();
        k.anchors = scene.anchors;
        k.hidden = scene.hidden2_unpadded;
        k.rank = scene.rank;
        k.anchor_bias = scene.anchor_bias.data();
        k.head_weight = scene.head_weight_1.data();
        k.head_bias = scene.head_bias_1.data();
        k.state = session.state.data();
        k.posed = session.posed.data();
        k.latent = session.latent.data();
        k.match_coefficient = scene.match_coefficient.data();
        k.match_used = scene.match_used.data();
        k.match = session.match.data();
        k.list_count = session.list_count.data();
        k.lists = columns_ * rows_;
        k.cost = session.cost.data();
        k.blocks = blocks_;
        skin.push_back(k);

        DeformStage d{};
        d.offset_groups = scene.offset_groups;
        d.head_groups = scene.head_groups;
        d.matched_groups = scene.matched_groups;
        d.groups = scene.groups;
        d.gaussians = scene.gaussians.data();
        d.face = scene.face.data();
        d.faces = scene.faces.data();
        d.posed = session.posed.data();
        d.rank = scene.rank;
        d.basis = scene.basis.data();
        d.basis_begin = scene.basis_begin.data();
        d.basis_channels = scene.basis_channels.data();
        d.basis_bound = scene.basis_bound.data();
        d.anchor_index = scene.anchor_index.data();
        d.anchor_weight = scene.anchor_weight.data();
        d.latent = session.latent.data();
        d.torso_weights = scene.torso_weights.data();
        d.match_parts = scene.anchors / 16;
        d.match = session.match.data();
        d.match_rest = scene.match_rest.data();
        d.match_weight = scene.match_weight.data();
        d.antialiased = scene.antialiased;
        d.width = width_;
        d.height = height_;
        d.columns = columns_;
        d.rows = rows_;
        d.state = session.state.data();
        d.splats = session.splats.data();
        d.depth = session.depth.data();
        d.list_count = session.list_count.data();
        d.list = session.list.data();
        d.list_capacity = list_capacity_;
        d.cost = session.cost.data();
        d.blocks = blocks_;
        d.order = session.order.data();
        deform.push_back(d);

        RasterizeStage r{};
        r.width = width_;
        r.height = height_;
        r.columns = columns_;
        r.rows = rows_;
        r.torso_group = uint32_t(scene.head_groups);
        r.splats = session.splats.data();
        r.depth = session.depth.data();
        r.list_count = session.list_count.data();
        r.list = session.list.data();
        r.list_capacity = list_capacity_;
        r.inverse_softness = 1.0f / scene.depth_softness;
        r.background = session.background.data();
        for (int format = 0; format < 3; ++format) r.plate[format] = session.plate[format].data();
        r.order = session.order.data();
        r.cost = session.cost.data();
        r.spill = session.spill.data();
        r.spill_capacity = uint32_t(session.spill.size());
        r.state = session.state.data();
        r.frame = session.frame.data();
        r.status = status;
        rasterize.push_back(r);
    }
    pose_.set(std::move(pose));
    skin_.set(std::move(skin));
    deform_.set(std::move(deform));
    rasterize_.set(std::move(rasterize));
}

void Engine::set_camera(int session, const Camera& camera) {
    sessions_[size_t(session)].camera = camera;
}

void Engine::set_background(int session, const uint8_t* rgb) {
    const OnDevice on_device(info_.index);
    check(cudaDeviceSynchronize(), "finishing frames before the background changes");
    set_plates(sessions_[size_t(session)], rgb);
    write_stages();
    drop_graphs();
}

void Engine::set_plates(Session& session, const uint8_t* rgb) {
    std::vector<uint32_t> packed(rgb ? size_t(width_) * height_ : 0);
    for (size_t i = 0; i < packed.size(); ++i)
        packed[i] = uint32_t(rgb[3 * i]) | uint32_t(rgb[3 * i + 1]) << 8 | uint32_t(rgb[3 * i + 2]) << 16;
    session.background.upload(packed);
    for (const Format format : {Format::kRgb, Format::kRgba, Format::kNv12}) {
        std::vector<uint8_t> plate(plate_bytes(format, width_, height_));
        make_plate(format, width_, height_, rgb ? reinterpret_cast<const uint8_t*>(packed.data()) : nullptr,
                   size_t(width_) * 4, plate.data());
        session.plate[int(format)].upload(plate);
    }
}

// ---------------------------------------------------------------- what others ask

size_t Engine::picture_bytes(Format format) const {
    return plate_bytes(format, width_, height_);
}

std::vector<VisibleSplat> Engine::splats(int index) const {
    const OnDevice on_device(info_.index);
    check(cudaDeviceSynchronize(), "drawing a frame");
    const Session& session = sessions_[size_t(index)];
    const DeviceScene& scene = *session.scene;
    std::vector<Splat> splats(session.splats.size());
    std::vector<float> depth(session.depth.size());
    check(cudaMemcpy(splats.data(), session.splats.data(), session.splats.bytes(), cudaMemcpyDeviceToHost),
          "reading splats");
    check(cudaMemcpy(depth.data(), session.depth.data(), session.depth.bytes(), cudaMemcpyDeviceToHost),
          "reading splats");
    std::vector<VisibleSplat> result(size_t(scene.head_count) + scene.torso_count, VisibleSplat{});
    for (size_t place = 0; place < depth.size(); ++place) {
        if (scene.source[place] < 0 || !(depth[place] >= 0)) continue;
        const bool torso = place >= size_t(scene.head_groups) * kWarp;
        result[size_t(scene.source[place]) + (torso ? size_t(scene.head_count) : 0)] = {true, splats[place],
                                                                                        depth[place]};
    }
    return result;
}

std::vector<double> Engine::stage_milliseconds() const {
    std::vector<double> result(kStageCount, 0.0);
    if (stage_event_.empty() || frames_ == 0) return result;
    const OnDevice on_device(info_.index);
    check(cudaEventSynchronize(stage_event_.back()), "drawing a frame");
    for (int i = 0; i < kStageCount; ++i) {
        float milliseconds = 0;
        check(cudaEventElapsedTime(&milliseconds, stage_event_[size_t(i)], stage_event_[size_t(i) + 1]),
              "timing a stage");
        result[size_t(i)] = milliseconds;
    }
    return result;
}

size_t Engine::bytes() const {
    size_t total = pose_.device.bytes() + skin_.device.bytes() + deform_.device.bytes() + rasterize_.device.bytes();
    for (const auto& scene : scenes_) total += scene->bytes();
    for (const Session& s : sessions_)
        total += s.state.bytes() + s.posed.bytes() + s.latent.bytes() + s.depth.bytes() + s.splats.bytes() +
                 s.list_count.bytes() + s.list.bytes() + s.background.bytes() + s.match.bytes() + s.cost.bytes() +
                 s.order.bytes() + s.spill.bytes() + s.plate[0].bytes() + s.plate[1].bytes() + s.plate[2].bytes();
    return total;
}

}  // namespace being::cuda
