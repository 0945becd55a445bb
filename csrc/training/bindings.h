// The differentiable operations of training, one file each; they make up the submodule being_rt._C.operations.
#pragma once

#include "csrc/training/arguments.h"

namespace being::training {

// Defines an operation of one stage: make(arguments, Real()) gives the stage's struct, run(stage) is the CPU's way,
// without the interpreter's lock, and launch(stage, stream) the device's.
template <class Make, class Run, class Launch>
void define_stage(py::module_& module, const char* name, const Make& make, const Run& run, const Launch& launch) {
    module.def(name, [=](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = make(arguments, real);
                const py::gil_scoped_release release;
                run(stage);
            },
            [&](auto stream) { launch(make(arguments, float()), stream); });
    });
}

void bind_anchors(py::module_& module);
void bind_skin(py::module_& module);
void bind_offsets(py::module_& module);
void bind_bind(py::module_& module);
void bind_body(py::module_& module);
void bind_project(py::module_& module);
void bind_rasterize(py::module_& module);
void bind_composite(py::module_& module);
void bind_loss(py::module_& module);
void bind_costs(py::module_& module);
void bind_statistics(py::module_& module);
void bind_tidy(py::module_& module);
void bind_weights(py::module_& module);
void bind_tracks(py::module_& module);
void bind_adam(py::module_& module);

inline void bind_operations(py::module_& parent) {
    py::module_ module = parent.def_submodule("operations", "Differentiable operations on raw pointers, for ops/.");
    bind_anchors(module);
    bind_skin(module);
    bind_offsets(module);
    bind_bind(module);
    bind_body(module);
    bind_project(module);
    bind_rasterize(module);
    bind_composite(module);
    bind_loss(module);
    bind_costs(module);
    bind_statistics(module);
    bind_tidy(module);
    bind_weights(module);
    bind_tracks(module);
    bind_adam(module);
}

}  // namespace being::training
