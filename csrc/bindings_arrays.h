// What all bindings share: checks of arrays and of the records made of them. Included by the bindings alone, the only
// files that know Python objects. Shapes that a message names are those of being_rt's records.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "csrc/engine/avatar_view.h"
#include "csrc/engine/camera.h"
#include "kernels/launch.h"

namespace py = pybind11;

namespace being {

// being_rt.errors.InvalidParameterError, which is a ValueError as well.
[[noreturn]] inline void invalid(const std::string& message) {
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

inline std::string shape_text(const std::vector<py::ssize_t>& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i)
        text += (i ? ", " : "") + (shape[i] < 0 ? "any" : std::to_string(shape[i]));
    return text + "]";
}

// `value` as a C-contiguous array of the given type ('e' is half float) and shape; -1 takes any length.
inline py::array checked(const py::handle& value, const std::string& name, const py::dtype& type,
                         const std::string& type_text, const std::vector<py::ssize_t>& shape) {
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

inline void check_finite(const float* values, size_t count, const std::string& name) {
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

inline RigView rig_view(Arrays& arrays) {
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

inline GaussiansView gaussians_view(Arrays& arrays, const std::string& layer) {
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

inline NetworkView network_view(Arrays& arrays, int head_count) {
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

inline SeamView seam_view(Arrays& arrays, int head_count, int torso_count) {
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

inline AvatarView avatar_view(Arrays& arrays) {
    AvatarView avatar{};
    avatar.rig = rig_view(arrays);
    avatar.head = gaussians_view(arrays, "head");
    avatar.head_face = arrays.index<int32_t>("head.face", {avatar.head.count}, avatar.rig.faces);
    avatar.head_barycentric = arrays.finite("head.barycentric", {avatar.head.count, 3});
    avatar.torso = gaussians_view(arrays, "torso");
    avatar.torso_weights = arrays.finite("torso.weights", {avatar.torso.count, 3});
    const float* response = arrays.finite("torso.response", {kMotions, 3, 4});
    const float* range = arrays.finite("torso.response_range", {2, kMotions});
    std::copy_n(response, kMotions * 12, avatar.response.maps[0]);
    std::copy_n(range, 2 * kMotions, avatar.response.range[0]);
    avatar.network = network_view(arrays, avatar.head.count);
    avatar.seam = seam_view(arrays, avatar.head.count, avatar.torso.count);
    avatar.antialiased = arrays.item("antialiased").cast<bool>();
    return avatar;
}

// ---------------------------------------------------------------- motion, cameras, pictures

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

inline Format format_of(const std::string& name) {
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

inline Frame3f frame_of(const float* m) {  // row-major 4x4
    return {{{m[0], m[4], m[8]}, {m[1], m[5], m[9]}, {m[2], m[6], m[10]}}, {m[3], m[7], m[11]}};
}

// Projected splats as arrays, zero where not visible; what Renderer.splats returns.
class SplatArrays {
  public:
    explicit SplatArrays(py::ssize_t n)
        : visible_(n),
          mean_({n, py::ssize_t(2)}),
          conic_({n, py::ssize_t(3)}),
          opacity_(n),
          colour_({n, py::ssize_t(3)}),
          depth_(n) {
        const auto clear = [](auto& array) { std::fill_n(array.mutable_data(), array.size(), 0); };
        clear(visible_);
        clear(mean_);
        clear(conic_);
        clear(opacity_);
        clear(colour_);
        clear(depth_);
    }

    void put(py::ssize_t i, float x, float y, float a, float b, float c, float log_opacity, float red, float green,
             float blue, float depth) {
        visible_.mutable_at(i) = true;
        mean_.mutable_at(i, 0) = x;
        mean_.mutable_at(i, 1) = y;
        // From the exponent in base 2 to the inverse covariance: -2 ln 2 a, -ln 2 b, -2 ln 2 c.
        conic_.mutable_at(i, 0) = a * -1.38629436f;
        conic_.mutable_at(i, 1) = b * -0.69314718f;
        conic_.mutable_at(i, 2) = c * -1.38629436f;
        opacity_.mutable_at(i) = std::exp2(log_opacity);
        colour_.mutable_at(i, 0) = red;
        colour_.mutable_at(i, 1) = green;
        colour_.mutable_at(i, 2) = blue;
        depth_.mutable_at(i) = depth;
    }

    py::dict dict() const {
        py::dict result;
        result["visible"] = visible_;
        result["mean"] = mean_;
        result["conic"] = conic_;
        result["opacity"] = opacity_;
        result["colour"] = colour_;
        result["depth"] = depth_;
        return result;
    }

  private:
    py::array_t<bool> visible_;
    py::array_t<float> mean_, conic_, opacity_, colour_, depth_;
};

inline void check_size(int width, int height) {
    constexpr int kLargest = config::kLargestPicture;
    if (width < 1 || height < 1 || width > kLargest || height > kLargest)
        invalid("size must be 1 to " + std::to_string(kLargest) + " pixels a side, got " + std::to_string(width) +
                " x " + std::to_string(height));
}

// A format by its name, if pictures of this size can be in it.
inline Format format_of(const std::string& name, int width, int height) {
    const Format format = format_of(name);
    if (format == Format::kNv12 && (width % 2 || height % 2))
        invalid("NV12 needs an even width and height, got " + std::to_string(width) + " x " + std::to_string(height));
    return format;
}

inline Camera camera_of(const py::object& world_to_camera, const py::object& intrinsics, int width, int height) {
    check_size(width, height);
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
    return {frame, k[0], k[4], k[2], k[5], width, height};
}

}  // namespace being
