// This instruction set's table of stages.
#include "csrc/cpu/stages.h"

#include "csrc/cpu/dispatch.h"

namespace being::cpu::BEING_ISA {

extern const Stages kStages;
const Stages kStages{launch_network,        launch_skin,       launch_skin_float,   launch_faces,
                     launch_deform_project, launch_sort_count, launch_sort_scatter, launch_bin_count,
                     launch_bin_scatter,    launch_rasterize};

}  // namespace being::cpu::BEING_ISA
