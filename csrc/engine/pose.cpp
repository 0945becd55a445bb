#include "csrc/engine/pose.h"

#include "kernels/common/rotation.h"

namespace being {
namespace {

using Vector = Vector3<double>;
using Matrix = Matrix3<double>;

Vector vector_at(const float* p) {
    return {p[0], p[1], p[2]};
}
Vector3<float> narrow(const Vector& v) {
    return {float(v.x), float(v.y), float(v.z)};
}
Matrix3<float> narrow(const Matrix& m) {
    return {narrow(m.x), narrow(m.y), narrow(m.z)};
}

// Row-major R - I.
void write_change(const Matrix3<float>& r, float* out) {
    const float rows[9] = {r.x.x, r.y.x, r.z.x, r.x.y, r.y.y, r.z.y, r.x.z, r.y.z, r.z.z};
    for (int i = 0; i < 9; ++i) out[i] = rows[i] - (i % 4 == 0 ? 1.0f : 0.0f);
}

}  // namespace

Pose pose_joints(const Skeleton& skeleton, const FrameParams& params) {
    const Vector turns[config::kJoints] = {vector_at(params.rotation), vector_at(params.neck), vector_at(params.jaw),
                                           vector_at(params.eyes), vector_at(params.eyes + 3)};
    Vector joint[config::kJoints];
    for (int j = 0; j < config::kJoints; ++j) {
        double at[3];
        for (int a = 0; a < 3; ++a) {
            at[a] = skeleton.joint_rest[3 * j + a];
            const float* row = skeleton.joint_expression + size_t(3 * j + a) * skeleton.expression_count;
            for (int k = 0; k < skeleton.expression_count; ++k) at[a] += double(row[k]) * params.expression[k];
        }
        joint[j] = {at[0], at[1], at[2]};
    }
    Pose pose;
    Frame3<double> global[config::kJoints];
    for (int j = 0; j < config::kJoints; ++j) {
        const Matrix rotation = rodrigues(turns[j]);
        const int parent = j < 2 ? j - 1 : 1;
        global[j] = j == 0 ? Frame3<double>{rotation, joint[0]}
                           : global[parent] * Frame3<double>{rotation, joint[j] - joint[parent]};
        const Vector origin = global[j].origin - global[j].linear * joint[j] + vector_at(params.translation);
        pose.joint[j] = {narrow(global[j].linear), narrow(origin)};
        pose.rotation[j] = narrow(rotation);
        if (j > 0) write_change(pose.rotation[j], pose.feature + 9 * (j - 1));
    }
    return pose;
}

Frame3f root_frame(const BodyResponse& response, const FrameParams& params) {
    double map[12] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};  // rows
    const float* const given[3] = {params.translation, params.rotation, params.neck};
    for (int i = 0; i < kMotions; ++i) {
        const double low = response.range[0][i], high = response.range[1][i];
        const double moved = motion_feature(double(given[i / 3][i % 3]), low, high);
        for (int k = 0; k < 12; ++k) map[k] += moved * response.maps[i][k];
    }
    const Matrix linear{{map[0], map[4], map[8]}, {map[1], map[5], map[9]}, {map[2], map[6], map[10]}};
    return {narrow(linear), narrow(Vector{map[3], map[7], map[11]} + vector_at(params.translation))};
}

void write_condition(const Pose& pose, const FrameParams& params, float* condition) {
    for (int i = 0; i < 100; ++i) *condition++ = params.expression[i];
    for (int j = 2; j < 5; ++j, condition += 9) write_change(pose.rotation[j], condition);
    *condition++ = params.eyelids[0];
    *condition++ = params.eyelids[1];
    write_change(pose.rotation[1], condition);
}

int active_coefficients(const Pose& pose, const FrameParams& params, int expressions, int32_t* column,
                        float* coefficient) {
    int count = 0, c = 0;
    const auto add = [&](float value) {
        column[count] = c++;
        coefficient[count] = value;
        count += value != 0.0f;
    };
    for (int i = 0; i < expressions; ++i) add(params.expression[i]);
    for (int i = 0; i < 2; ++i) add(params.eyelids[i]);
    for (int i = 0; i < config::kPoseFeatures; ++i) add(pose.feature[i]);
    return count;
}

}  // namespace being
