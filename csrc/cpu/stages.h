// The stages of one instruction set. Include in their files only, after nothing that must not see BEING_ISA.
#pragma once

#include "csrc/cpu/simd.h"
#include "kernels/launch.h"

namespace being::cpu::BEING_ISA {

void launch_network(const NetworkStage&, Worker);
void launch_skin(const SkinStage<Half>&, Worker);
void launch_skin_float(const SkinStage<float>&, Worker);
void launch_faces(const FaceStage&, Worker);
void launch_deform_project(const DeformStage&, Worker);
void launch_sort_count(const SortStage&, int digit, Worker);
void launch_sort_scatter(const SortStage&, int digit, Worker);
void launch_bin_count(const BinStage&, Worker);
void launch_bin_scatter(const BinStage&, Worker);
void launch_rasterize(const RasterizeStage&, Worker);

}  // namespace being::cpu::BEING_ISA
