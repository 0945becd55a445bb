// The CPU backend's stages as one table of functions per instruction set, and the choice among them.
#pragma once

#include <string>
#include <vector>

#include "kernels/launch.h"

namespace being::cpu {

struct Stages {
    void (*network)(const NetworkStage&, Worker);
    void (*skin)(const SkinStage<Half>&, Worker);
    void (*skin_float)(const SkinStage<float>&, Worker);
    void (*faces)(const FaceStage&, Worker);
    void (*deform_project)(const DeformStage&, Worker);
    void (*sort_count)(const SortStage&, int digit, Worker);
    void (*sort_scatter)(const SortStage&, int digit, Worker);
    void (*bin_count)(const BinStage&, Worker);
    void (*bin_scatter)(const BinStage&, Worker);
    void (*rasterize)(const RasterizeStage&, Worker);
};

// Names of the instruction sets that this build has and this machine runs, slowest first.
std::vector<std::string> available_levels();

// The table of a level; empty name: BEING_RT_SIMD of the environment, else the fastest. Throws std::invalid_argument
// with one line if the machine cannot run it.
const Stages& stages(const std::string& level);

// The level that stages(level) chooses.
std::string chosen_level(const std::string& level);

}  // namespace being::cpu
