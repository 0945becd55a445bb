// The module, and the CPU engine in it: checks what comes in, hands plain pointers to the engine, and lets go of the
// interpreter lock while a frame is drawn.
#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>
#include <thread>

#include "csrc/bindings_arrays.h"
#if defined(BEING_CUDA)
#include "csrc/bindings_cuda.h"
#include "csrc/bindings_offset_mlp.h"
#endif
#include "csrc/engine/engine.h"
#include "csrc/engine/pose.h"
#include "csrc/training/bindings.h"
#include "kernels/common/colour.h"
#include "kernels/common/composite.h"

namespace being {
namespace {

// 0: one per core; more than 16 do not draw a frame any faster.
int checked_threads(int threads) {
    if (threads < 0 || threads > 256) invalid("threads must be 0 to 256, got " + std::to_string(threads));
    return threads > 0 ? threads : std::clamp(int(std::thread::hardware_concurrency()), 1, 16);
}

std::string check_level(const std::string& level) {
    try {
        return cpu::chosen_level(level);
    } catch (const std::invalid_argument& error) {
        invalid(error.what());
    }
}

class PyEngine {
  public:
    PyEngine(const py::dict& avatar, int threads, const std::string& level) {
        threads = checked_threads(threads);
        check_level(level);
        Arrays arrays(avatar);
        const AvatarView view = avatar_view(arrays);
        const py::gil_scoped_release release;
        engine_.emplace(view, threads, level);
    }

    void set_camera(const py::object& world_to_camera, const py::object& intrinsics, int width, int height) {
        engine_->set_camera(camera_of(world_to_camera, intrinsics, width, height));
    }

    void set_background(const py::object& rgb) {
        const Camera& c = engine_->camera();
        if (c.width == 0) invalid("set_camera comes before set_background");
        const py::array array =
            rgb.is_none() ? py::array() : checked<uint8_t>(rgb, "background", {c.height, c.width, 3});
        engine_->set_background(rgb.is_none() ? nullptr : static_cast<const uint8_t*>(array.data()));
    }

    void render(const py::object& expression, const py::object& rotation, const py::object& neck, const py::object& jaw,
                const py::object& eyes, const py::object& translation, const py::object& eyelids, const py::object& out,
                const std::string& format, const py::object& alpha, const py::object& depth) {
        const Camera& c = engine_->camera();
        if (c.width == 0) invalid("set_camera comes before render");
        const Parameters params({expression, rotation, neck, jaw, eyes, translation, eyelids}, engine_->expressions());
        if (params.frames != 1)
            invalid("a frame needs params with T = 1, got T = " + std::to_string(params.frames) + "; use params[t]");
        const py::ssize_t w = c.width, h = c.height;
        Output output{format_of(format, c.width, c.height), nullptr, nullptr, nullptr};
        if (out.is_none()) invalid("out must be a uint8 array");
        if (output.format == Format::kNv12)
            output.pixels = writable<uint8_t>(out, "out", {h * 3 / 2, w});
        else
            output.pixels = writable<uint8_t>(out, "out", {h, w, output.format == Format::kRgb ? 3 : 4});
        output.alpha = writable<float>(alpha, "alpha", {h, w});
        output.depth = writable<float>(depth, "depth", {h, w});
        const FrameParams frame = params.at(0);
        const py::gil_scoped_release release;
        const std::lock_guard<std::mutex> one_at_a_time(mutex_);
        engine_->render(frame, output);
    }

    py::dict stage_times() const {
        py::dict times;
        for (int i = 0; i < kStageCount; ++i) times[kStageNames[i]] = engine_->stage_milliseconds()[i];
        return times;
    }

    // Arrays of the last frame's splats, head's then torso's.
    py::dict splats() const {
        const std::vector<Splat> all = engine_->splats();
        SplatArrays arrays(py::ssize_t(all.size()));
        for (size_t i = 0; i < all.size(); ++i) {
            const float* v = all[i].values;
            if (all[i].visible)
                arrays.put(py::ssize_t(i), v[kCentreX], v[kCentreY], v[kConicA], v[kConicB], v[kConicC],
                           v[kLogOpacity] - config::kOpacityBias, v[kRed], v[kGreen], v[kBlue], v[kDepth]);
        }
        return arrays.dict();
    }

    int threads() const { return engine_->threads(); }
    std::string level() const { return engine_->level(); }
    size_t memory() const { return engine_->bytes(); }

  private:
    std::optional<Engine> engine_;
    std::mutex mutex_;  // the interpreter's lock is not held while a frame is drawn
};

// ---------------------------------------------------------------- single operations

// A basis [V, 3, columns], float32 or float16, as float32.
py::array_t<float> basis_of(const py::object& value, const char* name, py::ssize_t vertices, py::ssize_t columns) {
    if (py::isinstance<py::array>(value) && py::reinterpret_borrow<py::array>(value).dtype().equal(py::dtype("e")))
        return py::array_t<float, py::array::c_style | py::array::forcecast>(
            checked(value, name, py::dtype("e"), "float16", {vertices, 3, columns}));
    return checked<float>(value, name, {vertices, 3, columns});
}

py::array_t<float> skin(const py::object& rest, const py::object& expression_basis, const py::object& eyelid_basis,
                        const py::object& pose_basis, const py::object& skinning_weights, const py::object& joint_rest,
                        const py::object& joint_expression, const py::object& expression, const py::object& rotation,
                        const py::object& neck, const py::object& jaw, const py::object& eyes,
                        const py::object& translation, const py::object& eyelids, int threads) {
    const py::array vertices_array = checked<float>(rest, "template", {-1, 3});
    const py::ssize_t vertices = vertices_array.shape(0);
    const py::array regression = checked<float>(joint_expression, "joint_expression", {config::kJoints, 3, -1});
    const int expressions = int(regression.shape(2));
    const py::array joints = checked<float>(joint_rest, "joint_rest", {config::kJoints, 3});
    const py::array weights_array = checked<float>(skinning_weights, "skinning_weights", {vertices, config::kJoints});
    const py::array_t<float> shape_array = basis_of(expression_basis, "expression_basis", vertices, expressions);
    const py::array_t<float> lid_array = basis_of(eyelid_basis, "eyelid_basis", vertices, 2);
    const py::array_t<float> pose_array = basis_of(pose_basis, "pose_basis", vertices, config::kPoseFeatures);
    const Parameters params({expression, rotation, neck, jaw, eyes, translation, eyelids}, expressions);
    threads = checked_threads(threads);
    const std::string level = check_level("");
    const cpu::Stages& stages = cpu::stages(level);

    py::array_t<float> result({params.frames, vertices, py::ssize_t(3)});
    float* out = result.mutable_data();
    const float *v = static_cast<const float*>(vertices_array.data()),
                *w = static_cast<const float*>(weights_array.data());
    const float *shape = shape_array.data(), *lid = lid_array.data(), *correct = pose_array.data();
    const Skeleton skeleton{expressions, static_cast<const float*>(joints.data()),
                            static_cast<const float*>(regression.data())};

    const py::gil_scoped_release release;
    constexpr int kLanes = config::kLanes;
    const int count = int(vertices), blocks = (count + kLanes - 1) / kLanes,
              columns = expressions + 2 + config::kPoseFeatures;
    Buffer<float> packed_rest(size_t(blocks) * 3 * kLanes), packed_weights(size_t(blocks) * config::kJoints * kLanes);
    Buffer<float> basis(size_t(blocks) * columns * 3 * kLanes), posed(size_t(blocks) * 3 * kLanes),
        coefficient(size_t(columns) + 1);
    Buffer<int32_t> active(size_t(columns) + 1);
    for (int i = 0; i < count; ++i) {
        const size_t block = size_t(i / kLanes), lane = size_t(i % kLanes);
        for (int a = 0; a < 3; ++a) packed_rest[(block * 3 + a) * kLanes + lane] = v[3 * i + a];
        for (int j = 0; j < config::kJoints; ++j)
            packed_weights[(block * config::kJoints + j) * kLanes + lane] = w[config::kJoints * i + j];
    }
    pack_basis(basis.data(), count, columns, [&](int i, int a, int c) {
        const size_t row = 3 * size_t(i) + a;
        if (c < expressions) return shape[row * expressions + c];
        c -= expressions;
        return c < 2 ? lid[row * 2 + c] : correct[row * config::kPoseFeatures + c - 2];
    });

    SkinStage<float> stage{
        blocks, columns, packed_rest.data(), basis.data(), packed_weights.data(), active.data(), coefficient.data(),
        0,      {},      posed.data(),       nullptr};
    ThreadPool pool(threads);
    for (py::ssize_t t = 0; t < params.frames; ++t) {
        const FrameParams frame = params.at(t);
        const Pose pose = pose_joints(skeleton, frame);
        stage.active_count = active_coefficients(pose, frame, expressions, active.data(), coefficient.data());
        std::copy(pose.joint, pose.joint + config::kJoints, stage.joint);
        pool.share([&](Worker worker) { stages.skin_float(stage, worker); });
        for (int i = 0; i < count; ++i)
            for (int a = 0; a < 3; ++a)
                out[(size_t(t) * vertices + i) * 3 + a] = posed[size_t(a) * blocks * kLanes + i];
    }
    return result;
}

// The composite stage on finished layers: what the rasterizer's epilogue does, alone.
py::array_t<float> composite(const py::object& head_colour, const py::object& head_alpha, const py::object& head_depth,
                             const py::object& torso_colour, const py::object& torso_alpha,
                             const py::object& torso_depth, double depth_softness, const py::object& seam_centre,
                             const py::object& seam_axis, double seam_radius, double seam_half_height,
                             const py::object& world_to_camera, const py::object& intrinsics) {
    const py::array colour = checked<float>(head_colour, "head_colour", {-1, -1, 3});
    const py::ssize_t height = colour.shape(0), width = colour.shape(1);
    const py::array inputs[5] = {checked<float>(head_alpha, "head_alpha", {height, width}),
                                 checked<float>(head_depth, "head_depth", {height, width}),
                                 checked<float>(torso_colour, "torso_colour", {height, width, 3}),
                                 checked<float>(torso_alpha, "torso_alpha", {height, width}),
                                 checked<float>(torso_depth, "torso_depth", {height, width})};
    const py::array centre = checked<float>(seam_centre, "seam_centre", {3}),
                    axis = checked<float>(seam_axis, "seam_axis", {3});
    const py::array pose = checked<float>(world_to_camera, "world_to_camera", {4, 4}),
                    lens = checked<float>(intrinsics, "intrinsics", {3, 3});
    if (!(depth_softness > 0)) invalid("depth_softness must be positive");
    const auto data = [](const py::array& array) { return static_cast<const float*>(array.data()); };
    const auto wide = [](const Vector3<float>& v) { return Vector3<double>{v.x, v.y, v.z}; };
    const Frame3f frame = frame_of(data(pose));
    const float *k = data(lens), *c = data(centre), *a = data(axis);
    const SeamEllipse seam = make_seam_ellipse(
        wide(transform(frame, {c[0], c[1], c[2]})), wide(frame.linear * Vector3<float>{a[0], a[1], a[2]}), seam_radius,
        seam_half_height, make_intrinsics(k[0], k[4], k[2], k[5], int(width), int(height)));
    py::array_t<float> result({height, width, py::ssize_t(4)});
    float* out = result.mutable_data();
    const float *hc = data(colour), *ha = data(inputs[0]), *hd = data(inputs[1]), *tc = data(inputs[2]),
                *ta = data(inputs[3]), *td = data(inputs[4]);
    for (py::ssize_t y = 0; y < height; ++y)
        for (py::ssize_t x = 0; x < width; ++x) {
            const py::ssize_t i = y * width + x;
            const LayerPixel<float> head{{hc[3 * i], hc[3 * i + 1], hc[3 * i + 2]}, ha[i], hd[i]};
            const LayerPixel<float> torso{{tc[3 * i], tc[3 * i + 1], tc[3 * i + 2]}, ta[i], td[i]};
            Pixel<float> pixel = composite_layers(head, torso, head_in_front(head, torso, float(1 / depth_softness)));
            if (seam.reach_x > 0) pixel = fill_holes(pixel, seam, float(x) + 0.5f, float(y) + 0.5f);
            const float values[4] = {pixel.colour.x, pixel.colour.y, pixel.colour.z, pixel.alpha};
            std::copy(values, values + 4, out + 4 * i);
        }
    return result;
}

}  // namespace
}  // namespace being

PYBIND11_MODULE(_C, module) {
    using namespace being;
    module.doc() = "Native core of being_rt.";
#if defined(BEING_CUDA)
    module.attr("cuda_built") = true;
    bind_cuda(module);
    bind_offset_mlp(module);
#else
    module.attr("cuda_built") = false;
#endif
#if defined(__clang__)
    module.attr("compiler") = "clang " __clang_version__;
#elif defined(__GNUC__)
    module.attr("compiler") = "gcc " __VERSION__;
#elif defined(_MSC_VER)
    module.attr("compiler") = "MSVC " + std::to_string(_MSC_VER);
#else
    module.attr("compiler") = "unknown";
#endif
    module.def("simd_levels", &cpu::available_levels);
    training::bind_operations(module);

    py::class_<PyEngine>(module, "Engine")
        .def(py::init<const py::dict&, int, const std::string&>(), py::arg("avatar"), py::arg("threads") = 0,
             py::arg("simd") = "")
        .def("set_camera", &PyEngine::set_camera, py::arg("world_to_camera"), py::arg("intrinsics"), py::arg("width"),
             py::arg("height"))
        .def("set_background", &PyEngine::set_background, py::arg("rgb"))
        .def("render", &PyEngine::render, py::arg("expression"), py::arg("rotation"), py::arg("neck"), py::arg("jaw"),
             py::arg("eyes"), py::arg("translation"), py::arg("eyelids"), py::arg("out"), py::arg("format") = "rgb",
             py::arg("alpha") = py::none(), py::arg("depth") = py::none())
        .def("stage_times", &PyEngine::stage_times)
        .def("splats", &PyEngine::splats)
        .def_property_readonly("threads", &PyEngine::threads)
        .def_property_readonly("simd", &PyEngine::level)
        .def_property_readonly("memory", &PyEngine::memory);

    module.def("skin", &skin, py::arg("template"), py::arg("expression_basis"), py::arg("eyelid_basis"),
               py::arg("pose_basis"), py::arg("skinning_weights"), py::arg("joint_rest"), py::arg("joint_expression"),
               py::arg("expression"), py::arg("rotation"), py::arg("neck"), py::arg("jaw"), py::arg("eyes"),
               py::arg("translation"), py::arg("eyelids"), py::arg("threads") = 0);
    module.def("composite", &composite, py::arg("head_colour"), py::arg("head_alpha"), py::arg("head_depth"),
               py::arg("torso_colour"), py::arg("torso_alpha"), py::arg("torso_depth"), py::arg("depth_softness"),
               py::arg("seam_centre"), py::arg("seam_axis"), py::arg("seam_radius"), py::arg("seam_half_height"),
               py::arg("world_to_camera"), py::arg("intrinsics"));
}
