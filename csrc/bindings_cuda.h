// The CUDA part of the module, and how what a device refuses reaches Python.
#pragma once

#include "csrc/bindings_arrays.h"
#include "csrc/cuda/runtime.h"

namespace being {

// Runs `work`, with what the device refuses as being_rt.errors.DeviceError. With or without the interpreter's lock.
template <class Work>
auto on_device(const Work& work) {
    try {
        return work();
    } catch (const cuda::DeviceFault& fault) {
        const py::gil_scoped_acquire lock;
        const py::object type = py::module_::import("being_rt.errors").attr("DeviceError");
        PyErr_SetString(type.ptr(), fault.what());
        throw py::error_already_set();
    } catch (const std::invalid_argument& error) {
        const py::gil_scoped_acquire lock;
        invalid(error.what());
    }
}

void bind_cuda(py::module_& module);

}  // namespace being
