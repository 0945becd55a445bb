// Draws an avatar: owns the packed scene, the buffers of a frame and the threads.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "csrc/cpu/dispatch.h"
#include "csrc/engine/camera.h"
#include "csrc/engine/scene.h"
#include "csrc/engine/thread_pool.h"

namespace being {

struct Output {
    Format format;
    uint8_t* pixels;  // height * width * 3 (RGB), * 4 (RGBA), or * 3/2 (NV12)
    float* alpha;     // [height][width] or null
    float* depth;     // [height][width] metres or null
};

// Stages as they are timed, in order; see docs/architecture.md. `deform` and `project` are one pass here.
constexpr const char* kStageNames[] = {"pose", "skin", "deform+project", "sort", "bin", "rasterize+composite"};
constexpr int kStageCount = 6;

// A splat as `project` leaves it, by the avatar's own index.
struct Splat {
    bool visible;
    float values[kSplatRows];
};

class Engine {
  public:
    // threads: 1 or more. level: instruction set, see cpu::stages.
    Engine(const AvatarView& avatar, int threads, const std::string& level);

    void set_camera(const Camera& camera);
    // rgb: [height][width][3] of the camera's size, or null for black. After set_camera.
    void set_background(const uint8_t* rgb);
    void render(const FrameParams& params, const Output& output);

    // After render: all splats of the frame, head's then torso's.
    std::vector<Splat> splats() const;

    const double* stage_milliseconds() const { return milliseconds_; }
    const Camera& camera() const { return camera_; }
    int threads() const { return pool_.count(); }
    const std::string& level() const { return level_; }
    int expressions() const { return scene_.expressions; }
    size_t bytes() const;

  private:
    void set_output(const Output& output);
    void pose(const FrameParams& params);
    void match_colours();
    void find_depth_ranges();
    void count_visible();
    void place_lists();
    void list_jobs();
    const uint8_t* plate_for(Format format);

    const std::string level_;
    const cpu::Stages& stages_;
    const Scene scene_;
    ThreadPool pool_;
    Camera camera_{};
    int columns_ = 0, rows_ = 0, bin_parts_ = 1;

    // Buffers of a frame.
    Buffer<float> condition_, network_scratch_, latent_, largest_latent_, vertices_, depth_range_, frames_, splats_,
        coefficient_;
    Buffer<int32_t> chunk_count_, active_;
    Buffer<uint32_t> box_, key_, id_, sort_histogram_, bin_histogram_, begin_, list_;
    Buffer<uint64_t> halfway_, order_;
    Buffer<TileJob> jobs_;
    std::atomic<int> next_chunk_{0}, next_job_{0};

    // The background, padded RGBX to blend over, and in each output format to copy from.
    Buffer<uint8_t> background_, plate_[3];
    bool has_background_ = false, plate_made_[3] = {};

    NetworkStage network_{};
    SkinStage<Half> skin_{};
    FaceStage faces_{};
    DeformStage deform_{};
    SortStage sort_{};
    BinStage bin_{};
    RasterizeStage rasterize_{};
    double milliseconds_[kStageCount] = {};
};

}  // namespace being
