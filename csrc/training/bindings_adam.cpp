#include <vector>

#include "csrc/training/bindings.h"
#include "kernels/training/adam.h"

namespace being::training {
namespace {

// A tensor, as being_rt/ops/adam.py lays it out.
struct Row {
    int64_t parameter, gradient, first, second, size, rate;
    double second_forgetting;
};
static_assert(sizeof(Row) == 7 * sizeof(int64_t));

// The launches of a step, kAdamSegments tensors each.
template <class Real>
std::vector<AdamStage<Real>> adam_stages(const Arguments& arguments) {
    AdamStage<Real> empty{};
    empty.learning_rate = arguments.pointer<const float>("learning_rate");
    empty.epsilon = arguments.pointer<const Real>("epsilon");
    empty.steps = arguments.pointer<int64_t>("steps");
    empty.ticket = arguments.pointer<int32_t>("ticket");
    empty.skip = arguments.pointer<const int32_t>("skip");
    empty.first_forgetting = Real(arguments.number("first_forgetting"));
    empty.beside = arguments.flag("beside");
    const bool last = arguments.flag("last");
    const auto* rows = arguments.pointer<const Row>("rows");
    const int count = arguments.integer("tensors");

    std::vector<AdamStage<Real>> stages;
    for (int i = 0; i < count; ++i) {
        if (i % kAdamSegments == 0) stages.push_back(empty);
        AdamStage<Real>& stage = stages.back();
        const Row& row = rows[i];
        stage.segment[stage.segments++] = {reinterpret_cast<Real*>(row.parameter),
                                           reinterpret_cast<const Real*>(row.gradient),
                                           reinterpret_cast<Real*>(row.first),
                                           reinterpret_cast<Real*>(row.second),
                                           row.size,
                                           int32_t(row.rate),
                                           stage.chunks,
                                           Real(row.second_forgetting)};
        stage.chunks += int((row.size + kAdamChunk - 1) / kAdamChunk);
    }
    if (last && stages.empty()) stages.push_back(empty);  // of nothing, but the step has been taken
    if (last) stages.back().last = true;
    return stages;
}

}  // namespace

void bind_adam(py::module_& module) {
    module.def("adam", [](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stages = adam_stages<decltype(real)>(arguments);
                const py::gil_scoped_release release;
                for (const auto& stage : stages) run_adam(stage);
            },
            [&](auto stream) {
                for (const auto& stage : adam_stages<float>(arguments)) launch_adam(stage, stream);
            });
    });
}

}  // namespace being::training
