// The only file that knows Python objects: checks what comes in, hands plain pointers to the engine, and lets go of the
// interpreter lock while a frame is drawn. Shapes that a message names are those of being_rt's records.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>
#include <thread>

#include "csrc/engine/engine.h"
#include "csrc/engine/pose.h"
#include "kernels/common/colour.h"
#include "kernels/common/composite.h"

namespace py = pybind11;

namespace being {
namespace {

// being_rt.errors.InvalidParameterError, which is a ValueError as well.
[[noreturn]] void invalid(const std::string& message) {
    const py::object type = py::module_::import("being_rt.errors").attr("InvalidParameterError");
    PyErr_SetString(type.ptr(), message.c_str());
    throw py::error_already_set();
}

// ---------------------------------------------------------------- arrays

template <class T>
const char* type_name() {
    if constexpr (std::is_same_v<T, float>) return "float32";
    if constexpr (std::is_same_v<T, int32_t>) return "int32";
    if constexpr (std::is_same_v<T, uint16_t>) return "uint16";
    if constexpr (std::is_same_v<T, uint8_t>) return "uint8";
    return "bool";
}

std::string shape_text(const std::vector<py::ssize_t>& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i)
        text += (i ? ", " : "") + (shape[i] < 0 ? "any" : std::to_string(shape[i]));
    return text + "]";
}

// `value` as a C-contiguous array of the given type ('e' is half float) and shape; -1 takes any length.
py::array checked(const py::handle& value, const std::string& name, const py::dtype& type, const std::string& type_text,
                  const std::vector<py::ssize_t>& shape) {
    if (!py::isinstance<py::array>(value))
        invalid(name + " must be a NumPy array " + type_text + " " + shape_text(shape));
    const auto array = py::reinterpret_borrow<py::array>(value);
    bool fits = array.dtype().is(type) || array.dtype().equal(type);
    fits = fits && array.ndim() == py::ssize_t(shape.size());
    for (size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || array.shape(py::ssize_t(i)) == shape[i];
    if (!fits) {
        std::vector<py::ssize_t> got(array.shape(), array.shape() + array.ndim());
        invalid(name + " must be " + type_text + " " + shape_text(shape) + ", got " +
                py::str(array.dtype()).cast<std::string>() + " " + shape_text(got));
    }
    if (!(array.flags() & py::array::c_style))
        invalid(name + " must be C-contiguous; pass np.ascontiguousarray(" + name + ")");
    return array;
}

template <class T>
py::array checked(const py::handle& value, const std::string& name, const std::vector<py::ssize_t>& shape) {
    return checked(value, name, py::dtype::of<T>(), type_name<T>(), shape);
}

void check_finite(const float* values, size_t count, const std::string& name) {
    for (size_t i = 0; i < count; ++i)
        if (!std::isfinite(values[i]))
            invalid(name + " holds " + (std::isnan(values[i]) ? "NaN" : "infinity") + "; values must be finite");
}

template <class T>
void check_range(const T* values, size_t count, int64_t limit, const std::string& name) {
    for (size_t i = 0; i < count; ++i)
        if (int64_t(values[i]) < 0 || int64_t(values[i]) >= limit)
            invalid(name + " holds index " + std::to_string(int64_t(values[i])) + ", must be 0 to " +
                    std::to_string(limit - 1));
}

// Looks up named arrays of a dictionary, checks them and keeps them alive.
class Arrays {
  public:
    explicit Arrays(const py::dict& dict) : dict_(dict) {}

    template <class T>
    const T* get(const char* name, const std::vector<py::ssize_t>& shape) {
        return static_cast<const T*>(keep(checked<T>(item(name), name, shape)).data());
    }
    const float* finite(const char* name, const std::vector<py::ssize_t>& shape) {
        const py::array& array = keep(checked<float>(item(name), name, shape));
        const auto* values = static_cast<const float*>(array.data());
        check_finite(values, size_t(array.size()), name);
        return values;
    }
    const Half* half(const char* name, const std::vector<py::ssize_t>& shape) {
        const py::array& array = keep(checked(item(name), name, py::dtype("e"), "float16", shape));
        const auto* values = static_cast<const Half*>(array.data());
        for (py::ssize_t i = 0; i < array.size(); ++i)
            if ((values[i] & 0x7c00) == 0x7c00)
                invalid(std::string(name) + " holds NaN or infinity; values must be finite");
        return values;
    }
    template <class T>
    const T* index(const char* name, const std::vector<py::ssize_t>& shape, int64_t limit) {
        const py::array& array = keep(checked<T>(item(name), name, shape));
        const auto* values = static_cast<const T*>(array.data());
        check_range(values, size_t(array.size()), limit, name);
        return values;
    }
    // Length of one axis of an array, before the array is checked.
    int length(const char* name, int axis) const {
        const py::object value = item(name);
        if (!py::isinstance<py::array>(value)) invalid(std::string(name) + " must be a NumPy array");
        const auto array = py::reinterpret_borrow<py::array>(value);
        if (array.ndim() <= axis) invalid(std::string(name) + " has too few dimensions");
        return int(array.shape(axis));
    }
    float number(const char* name) const {
        const double value = item(name).cast<double>();
        if (!std::isfinite(value)) invalid(std::string(name) + " must be finite");
        return float(value);
    }
    py::object item(const char* name) const {
        if (!dict_.contains(name)) invalid(std::string("avatar array ") + name + " is missing");
        return dict_[name];
    }
    bool has(const char* name) const { return dict_.contains(name); }

  private:
    const py::array& keep(py::array array) {
        kept_.push_back(std::move(array));
        return kept_.back();
    }

    py::dict dict_;
    std::vector<py::array> kept_;
};

// ---------------------------------------------------------------- the avatar

RigView rig_view(Arrays& arrays) {
    RigView rig{};
    const py::ssize_t vertices = rig.vertices = arrays.length("template", 0),
                      faces = rig.faces = arrays.length("faces", 0);
    const py::ssize_t expressions = rig.expressions = arrays.length("expression_basis", 2);
    if (expressions != 100) invalid("expression_basis must have 100 expressions, got " + std::to_string(expressions));
    rig.rest = arrays.finite("template", {vertices, 3});
    rig.face = arrays.index<int32_t>("faces", {faces, 3}, vertices);
    rig.expression_basis = arrays.half("expression_basis", {vertices, 3, expressions});
    rig.eyelid_basis = arrays.half("eyelid_basis", {vertices, 3, 2});
    rig.pose_basis = arrays.half("pose_basis", {vertices, 3, config::kPoseFeatures});
    rig.skinning_weights = arrays.finite("skinning_weights", {vertices, config::kJoints});
    rig.joint_rest = arrays.finite("joint_rest", {config::kJoints, 3});
    rig.joint_expression = arrays.finite("joint_expression", {config::kJoints, 3, expressions});
    rig.face_frames = arrays.finite("face_frames", {faces, 2, 2});
    return rig;
}

GaussiansView gaussians_view(Arrays& arrays, const std::string& layer) {
    const auto name = [&](const char* field) { return layer + "." + field; };
    GaussiansView g{};
    const py::ssize_t n = g.count = arrays.length(name("position").c_str(), 0);
    if (n > 4'000'000) invalid(layer + " has " + std::to_string(n) + " Gaussians, the limit is 4,000,000");
    g.position = arrays.finite(name("position").c_str(), {n, 3});
    g.rotation = arrays.finite(name("rotation").c_str(), {n, 4});
    g.log_scale = arrays.finite(name("log_scale").c_str(), {n, 3});
    g.opacity_logit = arrays.finite(name("opacity_logit").c_str(), {n});
    g.colour = arrays.finite(name("colour").c_str(), {n, 3});
    g.facing_fade = reinterpret_cast<const uint8_t*>(arrays.get<bool>(name("facing_fade").c_str(), {n}));
    return g;
}

NetworkView network_view(Arrays& arrays, int head_count) {
    NetworkView n{};
    if (!arrays.has("basis")) return n;
    const py::ssize_t count = n.count = arrays.length("basis", 0), rank = n.rank = arrays.length("basis", 2);
    if (count > head_count)
        invalid("basis covers " + std::to_string(count) + " Gaussians, the head has " + std::to_string(head_count));
    if (rank < 1 || rank > 64) invalid("the offset network's rank must be 1 to 64, got " + std::to_string(rank));
    const py::ssize_t hidden0 = n.hidden0 = arrays.length("trunk_weight_0", 0);
    const py::ssize_t hidden1 = n.hidden1 = arrays.length("trunk_weight_1", 0);
    const py::ssize_t hidden2 = n.hidden2 = arrays.length("head_weight_0", 0);
    const py::ssize_t anchors = n.anchors = arrays.length("anchor_code", 0),
                      code = n.code = arrays.length("anchor_code", 1);
    n.trunk_weight_0 = arrays.finite("trunk_weight_0", {hidden0, config::kCondition});
    n.trunk_bias_0 = arrays.finite("trunk_bias_0", {hidden0});
    n.trunk_weight_1 = arrays.finite("trunk_weight_1", {hidden1, hidden0});
    n.trunk_bias_1 = arrays.finite("trunk_bias_1", {hidden1});
    n.anchor_code = arrays.finite("anchor_code", {anchors, code});
    n.head_weight_0 = arrays.finite("head_weight_0", {hidden2, hidden1 + code});
    n.head_bias_0 = arrays.finite("head_bias_0", {hidden2});
    n.head_weight_1 = arrays.finite("head_weight_1", {rank, hidden2});
    n.head_bias_1 = arrays.finite("head_bias_1", {rank});
    n.anchor_index = arrays.index<uint16_t>("anchor_index", {count, 4}, anchors);
    n.anchor_weight = arrays.finite("anchor_weight", {count, 4});
    n.basis = arrays.half("basis", {count, config::kChannels, rank});
    return n;
}

SeamView seam_view(Arrays& arrays, int head_count, int torso_count) {
    SeamView seam{};
    seam.centre = arrays.finite("seam.centre", {3});
    seam.axis = arrays.finite("seam.axis", {3});
    seam.radius = arrays.number("seam.radius");
    seam.half_height = arrays.number("seam.half_height");
    seam.depth_softness = arrays.number("seam.depth_softness");
    const py::ssize_t heads = seam.head_band_count = arrays.length("seam.head_band", 0);
    const py::ssize_t torsos = seam.torso_band_count = arrays.length("seam.torso_band", 0);
    seam.head_band = arrays.index<int32_t>("seam.head_band", {heads}, head_count);
    seam.torso_band = arrays.index<int32_t>("seam.torso_band", {torsos}, torso_count);
    seam.torso_band_weight = arrays.finite("seam.torso_band_weight", {torsos});
    return seam;
}

AvatarView avatar_view(Arrays& arrays) {
    AvatarView avatar{};
    avatar.rig = rig_view(arrays);
    avatar.head = gaussians_view(arrays, "head");
    avatar.head_face = arrays.index<int32_t>("head.face", {avatar.head.count}, avatar.rig.faces);
    avatar.head_barycentric = arrays.finite("head.barycentric", {avatar.head.count, 3});
    avatar.torso = gaussians_view(arrays, "torso");
    avatar.torso_weights = arrays.finite("torso.weights", {avatar.torso.count, 3});
    avatar.network = network_view(arrays, avatar.head.count);
    avatar.seam = seam_view(arrays, avatar.head.count, avatar.torso.count);
    avatar.antialiased = arrays.item("antialiased").cast<bool>();
    return avatar;
}

// ---------------------------------------------------------------- engine

// Rows of a motion record: name and width.
struct Parameters {
    std::vector<py::array> kept;
    py::ssize_t frames = 0;
    const float* value[7] = {};
    int width[7] = {0, 3, 3, 3, 6, 3, 2};

    Parameters(const py::handle (&given)[7], int expressions) {
        static const char* const names[7] = {"expression", "rotation", "neck", "jaw", "eyes", "translation", "eyelids"};
        width[0] = expressions;
        for (int i = 0; i < 7; ++i) {
            kept.push_back(checked<float>(given[i], names[i], {i ? frames : -1, width[i]}));
            frames = kept.back().shape(0);
            value[i] = static_cast<const float*>(kept.back().data());
            check_finite(value[i], size_t(kept.back().size()), names[i]);
        }
    }
    FrameParams at(py::ssize_t t) const {
        const auto row = [&](int i) { return value[i] + t * width[i]; };
        return {row(0), row(1), row(2), row(3), row(4), row(5), row(6)};
    }
};

Format format_of(const std::string& name) {
    if (name == "rgb") return Format::kRgb;
    if (name == "rgba") return Format::kRgba;
    if (name == "nv12") return Format::kNv12;
    invalid("format must be 'rgb', 'rgba' or 'nv12', got '" + name + "'");
}

template <class T>
T* writable(const py::object& value, const std::string& name, const std::vector<py::ssize_t>& shape) {
    if (value.is_none()) return nullptr;
    py::array array = checked<T>(value, name, shape);
    if (!array.writeable()) invalid(name + " is read-only");
    return static_cast<T*>(array.mutable_data());
}

Frame3f frame_of(const float* m) {  // row-major 4x4
    return {{{m[0], m[4], m[8]}, {m[1], m[5], m[9]}, {m[2], m[6], m[10]}}, {m[3], m[7], m[11]}};
}

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
        constexpr int kLargest = config::kLargestPicture;
        if (width < 1 || height < 1 || width > kLargest || height > kLargest)
            invalid("size must be 1 to " + std::to_string(kLargest) + " pixels a side, got " + std::to_string(width) +
                    " x " + std::to_string(height));
        const py::array pose = checked<float>(world_to_camera, "world_to_camera", {4, 4});
        const py::array lens = checked<float>(intrinsics, "intrinsics", {3, 3});
        const auto *m = static_cast<const float*>(pose.data()), *k = static_cast<const float*>(lens.data());
        check_finite(m, 16, "world_to_camera");
        check_finite(k, 9, "intrinsics");
        if (!(k[0] > 0) || !(k[4] > 0)) invalid("intrinsics must have positive focal lengths");
        const Frame3f frame = frame_of(m);
        const Matrix3<float>& r = frame.linear;
        for (const float error :
             {dot(r.x, r.x) - 1, dot(r.y, r.y) - 1, dot(r.z, r.z) - 1, dot(r.x, r.y), dot(r.y, r.z), dot(r.z, r.x)})
            if (std::fabs(error) > 1e-3f) invalid("world_to_camera must be a rotation and a translation");
        engine_->set_camera({frame, k[0], k[4], k[2], k[5], width, height});
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
        Output output{format_of(format), nullptr, nullptr, nullptr};
        if (output.format == Format::kNv12 && (w % 2 || h % 2))
            invalid("NV12 needs an even width and height, got " + std::to_string(w) + " x " + std::to_string(h));
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
        const auto n = py::ssize_t(all.size());
        py::array_t<bool> visible(n);
        py::array_t<float> mean({n, py::ssize_t(2)}), conic({n, py::ssize_t(3)}), opacity(n),
            colour({n, py::ssize_t(3)}), depth(n);
        for (py::ssize_t i = 0; i < n; ++i) {
            const float* v = all[size_t(i)].values;
            visible.mutable_at(i) = all[size_t(i)].visible;
            for (int k = 0; k < 2; ++k) mean.mutable_at(i, k) = v[kCentreX + k];
            // From the exponent in base 2 to the inverse covariance: -2 ln 2 a, -ln 2 b, -2 ln 2 c.
            conic.mutable_at(i, 0) = v[kConicA] * -1.38629436f;
            conic.mutable_at(i, 1) = v[kConicB] * -0.69314718f;
            conic.mutable_at(i, 2) = v[kConicC] * -1.38629436f;
            opacity.mutable_at(i) = all[size_t(i)].visible ? std::exp2(v[kLogOpacity] - config::kOpacityBias) : 0.0f;
            for (int k = 0; k < 3; ++k) colour.mutable_at(i, k) = v[kRed + k];
            depth.mutable_at(i) = v[kDepth];
        }
        py::dict result;
        result["visible"] = visible;
        result["mean"] = mean;
        result["conic"] = conic;
        result["opacity"] = opacity;
        result["colour"] = colour;
        result["depth"] = depth;
        return result;
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
    const cpu::Stages& stages = cpu::stages(check_level(""));

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
    module.attr("cuda_built") = false;
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
