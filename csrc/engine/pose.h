// Stage `pose`, the part that is the same for all backends: five joints are not worth a vector.
#pragma once

#include "kernels/launch.h"

namespace being {

// Rodrigues, joint chain global - neck - (jaw, left eye, right eye), pose feature. Li et al. 2017, section 4.
Pose pose_joints(const Skeleton& skeleton, const FrameParams& params);

// The body's root, rest pose to world: its response to the motion, then the common translation.
Frame3f root_frame(const BodyResponse& response, const FrameParams& params);

// What the offset network sees, [kCondition]: expression 100, jaw, left eye, right eye (R - I), eyelids, neck (R - I).
void write_condition(const Pose& pose, const FrameParams& params, float* condition);

// The coefficients of a skin basis, [expressions + 2 + 36], that are not 0. Returns how many.
int active_coefficients(const Pose& pose, const FrameParams& params, int expressions, int32_t* column,
                        float* coefficient);

}  // namespace being
