// Draws sessions of avatars on a CUDA device: one sequence of launches, or one graph of them, per frame of all
// sessions. Nothing is allocated, and the host waits for nothing, between handing in parameters and finished pixels.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "csrc/cuda/packing.h"
#include "csrc/engine/camera.h"
#include "kernels/common/format.h"
#include "kernels/launch.h"

namespace being::cuda {

// Stages as they are timed, in order; see docs/architecture.md.
constexpr const char* kStageNames[] = {"pose", "skin", "deform+project+bin", "sort+rasterize+composite"};
constexpr int kStageCount = 4;

// Device memory that frames are drawn into and copied to the host from, in turn.
struct OutputBuffer {
    explicit OutputBuffer(size_t size) : pixels(size) {}
    DeviceArray<uint8_t> pixels;
    Event copied;
    bool copying = false;
};

// A splat as `project` leaves it, by the avatar's own index.
struct VisibleSplat {
    bool visible;
    Splat values;
    float depth;
};

class Engine {
  public:
    // sessions: which avatar each draws. The device must be current (OnDevice). graph false: stages are launched one by
    // one and timed.
    Engine(const std::vector<AvatarView>& avatars, const std::vector<int>& sessions, int width, int height, int device,
           bool graph);
    ~Engine();

    void set_camera(int session, const Camera& camera);
    // rgb: [height][width][3] on the host, or null for black.
    void set_background(int session, const uint8_t* rgb);

    // Where a frame goes: device pointers; of session i, pixels + i * picture_bytes(format), and so on.
    struct Output {
        Format format;
        uint8_t* pixels;
        float *alpha, *depth;
        OutputBuffer* buffer;  // that `pixels` is in, or null
    };
    // Puts a frame of all sessions on `stream` (null: the engine's own) and returns its number, at once. params: one
    // per session. A frame whose lists overflow draws nothing; `wait` draws it again.
    uint64_t submit(const FrameParams* params, const Output& output, cudaStream_t stream);
    // Until a submitted frame is complete. True if it had to be drawn again.
    bool wait(uint64_t frame);
    // Starts copying the first `bytes` of a buffer to the host after a frame; into pinned memory, this overlaps what
    // follows. Complete after wait_for_copy.
    void copy_to_host(uint64_t frame, OutputBuffer& buffer, void* to, size_t bytes);
    void wait_for_copy(OutputBuffer& buffer);

    size_t picture_bytes(Format format) const;
    // After a frame: all splats of a session, head's then torso's.
    std::vector<VisibleSplat> splats(int session) const;
    // Milliseconds of the last frame; zeros where stages are not timed.
    std::vector<double> stage_milliseconds() const;
    const DeviceInfo& device() const { return info_; }
    int sessions() const { return int(sessions_.size()); }
    int width() const { return width_; }
    int height() const { return height_; }
    int list_capacity() const { return list_capacity_; }
    uint64_t lost_frames() const { return lost_frames_; }
    size_t bytes() const;
    const DeviceScene& scene(int session) const { return *sessions_[size_t(session)].scene; }

  private:
    struct Session {
        const DeviceScene* scene;
        Camera camera;
        DeviceArray<FrameState> state;
        DeviceArray<float4> posed;
        DeviceArray<float> latent, match, depth;
        DeviceArray<Splat> splats;
        DeviceArray<uint32_t> list_count, order, background, frame;
        DeviceArray<BlockCost> cost;
        DeviceArray<uint64_t> spill;
        DeviceArray<uint8_t> plate[3];
        DeviceArray<uint2> list;
        PinnedArray<FrameInput> input;
        PinnedArray<FrameStatus> status;
    };
    template <class Stage>
    struct Stages {
        std::vector<Stage> host;
        DeviceArray<Stage> device;
        void set(std::vector<Stage> stages) {
            device.upload(stages);
            host = std::move(stages);
        }
        StageArray<Stage> array() const { return {host.data(), device.data(), int(host.size())}; }
    };
    struct Submitted {
        uint64_t frame;
        cudaStream_t stream;
        Format format;
    };

    void write_stages();
    void set_plates(Session& session, const uint8_t* rgb);
    void grow_lists(uint32_t needed);
    void launch_stages(Format format, cudaStream_t stream);
    void launch(Format format, cudaStream_t stream);
    uint64_t start(Format format, cudaStream_t stream);
    cudaGraphExec_t make_graph(Format format);
    void drop_graphs();
    uint32_t lists_needed(uint64_t frame) const;
    void wait_for_slot(uint64_t frame);
    void follow(cudaStream_t stream);
    void check_stream(cudaStream_t stream);

    const DeviceInfo info_;
    const int width_, height_, columns_, rows_, blocks_;
    const bool use_graph_;
    int list_capacity_ = 0, most_vertices_ = 0, most_groups_ = 0, rank_ = 0;
    std::vector<std::unique_ptr<DeviceScene>> scenes_;
    std::vector<Session> sessions_;
    Stages<PoseStage> pose_;
    Stages<SkinStage> skin_;
    Stages<DeformStage> deform_;
    Stages<RasterizeStage> rasterize_;
    Stream own_stream_, copy_stream_;
    cudaStream_t last_stream_ = nullptr, checked_stream_ = nullptr;
    cudaGraphExec_t graph_[3] = {};
    std::vector<Event> done_, stage_event_;
    Submitted submitted_[kInputSlots] = {};
    uint64_t frames_ = 0, lost_frames_ = 0, redrawn_[kInputSlots] = {};
    std::array<uint64_t, 64> lost_{};  // the last of them
};

}  // namespace being::cuda
