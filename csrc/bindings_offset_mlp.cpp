#include "csrc/bindings_offset_mlp.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>

#include "csrc/bindings_cuda.h"
#include "csrc/cuda/offset_mlp.h"

namespace being {
namespace {

constexpr float kLargestHalf = 65504.0f;

void check_between(const std::string& name, py::ssize_t value, py::ssize_t least, py::ssize_t greatest) {
    if (value < least || value > greatest)
        invalid(name + " must be " + std::to_string(least) + " to " + std::to_string(greatest) + ", got " +
                std::to_string(value));
}

class PyOffsetMlp {
  public:
    PyOffsetMlp(const py::sequence& weights, const py::sequence& biases, const py::object& positional, int device) {
        const py::ssize_t count = py::ssize_t(weights.size());
        if (count < 2 || py::ssize_t(biases.size()) != count)
            invalid("weights and biases must be of as many layers, two or more, got " + std::to_string(count) +
                    " and " + std::to_string(biases.size()));
        std::vector<py::array> kept{checked<float>(positional, "positional", {-1, -1})};
        const py::ssize_t points = kept[0].shape(0), positional_inputs = kept[0].shape(1);
        check_between("the number of points", points, 1, 4'000'000);
        check_between("the number of positional inputs", positional_inputs, 1, 256);
        const auto* inputs = static_cast<const float*>(kept[0].data());
        check_finite(inputs, size_t(kept[0].size()), "positional");

        std::vector<cuda::HostLayer> layers;
        for (py::ssize_t i = 0; i < count; ++i) {
            const std::string suffix = "[" + std::to_string(i) + "]";
            // Hidden layers have one width, by their first; the last layer has its own number of outputs.
            const py::ssize_t rows = i == 0 || i == count - 1 ? -1 : layers[0].outputs;
            const py::ssize_t columns = i == 0 ? -1 : layers[0].outputs;
            const py::array weight = checked<float>(weights[size_t(i)], "weights" + suffix, {rows, columns});
            const py::array bias = checked<float>(biases[size_t(i)], "biases" + suffix, {weight.shape(0)});
            kept.push_back(weight);
            kept.push_back(bias);
            const auto *w = static_cast<const float*>(weight.data()), *b = static_cast<const float*>(bias.data());
            check_finite(w, size_t(weight.size()), "weights" + suffix);
            check_finite(b, size_t(bias.size()), "biases" + suffix);
            if (std::any_of(w, w + weight.size(), [](float value) { return std::fabs(value) > kLargestHalf; }))
                invalid("weights" + suffix + " has values beyond 65504, the largest half float");
            layers.push_back({int(weight.shape(0)), int(weight.shape(1)), w, b});
        }
        check_between("the hidden layers' width", layers[0].outputs, 1, 256);
        check_between("the number of condition inputs", layers[0].inputs - positional_inputs, 1, 256);
        check_between("the number of outputs", layers.back().outputs, 1, cuda::kOffsetMlpOutputs);
        const py::gil_scoped_release release;
        on_device([&] {
            network_ = std::make_unique<cuda::OffsetMlp>(device, layers, inputs, int(points), int(positional_inputs));
        });
    }

    void evaluate(const py::object& condition, const py::object& out, uintptr_t stream) {
        const py::array given = checked<float>(condition, "condition", {network_->conditions()});
        const auto* values = static_cast<const float*>(given.data());
        check_finite(values, size_t(given.size()), "condition");
        float* const host = writable<float>(out, "out", {network_->points(), network_->outputs()});
        const auto where = reinterpret_cast<cudaStream_t>(stream);
        const py::gil_scoped_release release;
        const std::lock_guard lock(mutex_);
        on_device([&] {
            network_->evaluate(values, where);
            if (!host) return;
            network_->download(host, where);
            network_->synchronize(where);
        });
    }

    void synchronize(uintptr_t stream) const {
        const py::gil_scoped_release release;
        on_device([&] { network_->synchronize(reinterpret_cast<cudaStream_t>(stream)); });
    }

    uintptr_t pointer() const { return reinterpret_cast<uintptr_t>(network_->offsets()); }
    py::tuple shape() const { return py::make_tuple(network_->points(), network_->outputs()); }

  private:
    std::unique_ptr<cuda::OffsetMlp> network_;
    std::mutex mutex_;
};

}  // namespace

void bind_offset_mlp(py::module_& module) {
    py::class_<PyOffsetMlp>(module, "OffsetMlp")
        .def(py::init<const py::sequence&, const py::sequence&, const py::object&, int>(), py::arg("weights"),
             py::arg("biases"), py::arg("positional"), py::arg("device") = 0)
        .def("evaluate", &PyOffsetMlp::evaluate, py::arg("condition"), py::arg("out") = py::none(),
             py::arg("stream") = 0)
        .def("synchronize", &PyOffsetMlp::synchronize, py::arg("stream") = 0)
        .def_property_readonly("pointer", &PyOffsetMlp::pointer)
        .def_property_readonly("shape", &PyOffsetMlp::shape);
}

}  // namespace being
