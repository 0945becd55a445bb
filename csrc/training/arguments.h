// What a differentiable operation is called with from Python: named pointers and numbers, already checked there
// (being_rt/ops/native.py). No tensor type crosses the border, so the core needs no PyTorch.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "csrc/bindings_arrays.h"

#if defined(BEING_CUDA)
#include "csrc/bindings_cuda.h"
#endif

namespace being::training {

class Arguments {
  public:
    explicit Arguments(const py::kwargs& given) : given_(given) {}

    // An address, or null where None or 0 was given.
    template <class T>
    T* pointer(const char* name) const {
        const py::object value = get(name);
        return value.is_none() ? nullptr : reinterpret_cast<T*>(value.cast<uintptr_t>());
    }
    int integer(const char* name) const { return get(name).cast<int>(); }
    int64_t long_integer(const char* name) const { return get(name).cast<int64_t>(); }
    double number(const char* name) const { return get(name).cast<double>(); }
    bool flag(const char* name) const { return get(name).cast<bool>(); }

    // For kernels that read 16 bytes at a time; the CPU takes any address.
    void require_aligned(const std::string& operation, const char* name) const {
        if (on_cuda() && uintptr_t(pointer<void>(name)) % 16 != 0)
            invalid(operation + ": " + name + " must begin at a multiple of 16 bytes; pass a copy of it");
    }

    // What was given and never asked for: Python and this build are of different versions, and a result without it
    // would be a wrong one.
    void require_all_used() const {
        for (const auto& [name, value] : given_)
            if (!used_.count(name.cast<std::string>()))
                invalid("this build of being_rt does not know the argument " + name.cast<std::string>() +
                        "; build it again from the same sources as its Python part");
    }

    bool on_cuda() const { return integer("cuda_device") >= 0; }
    bool is_double() const { return flag("is_double"); }

  private:
    py::object get(const char* name) const {
        if (!given_.contains(name)) invalid(std::string("missing argument ") + name);
        used_.insert(name);
        return given_[name];
    }

    py::kwargs given_;
    mutable std::set<std::string, std::less<>> used_{"cuda_device", "stream", "is_double"};
};

// Runs cpu(Real()) with float or double, without the interpreter's lock; or cuda(stream) on the device that was named.
// Both take what they need from `Arguments` before: make the stage's struct first, then call this.
template <class Cpu, class Cuda>
void dispatch(const Arguments& arguments, const Cpu& cpu, [[maybe_unused]] const Cuda& cuda) {
    if (arguments.on_cuda()) {
#if defined(BEING_CUDA)
        if (arguments.is_double()) invalid("operations on a CUDA device take float32, not float64");
        const int device = arguments.integer("cuda_device");
        const auto stream = reinterpret_cast<cudaStream_t>(uintptr_t(arguments.long_integer("stream")));
        on_device([&] {
            const cuda::OnDevice current(device);
            cuda(stream);
            cuda::check(cudaGetLastError(), "launching a kernel");
        });
        arguments.require_all_used();
        return;
#else
        invalid("this build has no CUDA part; install with nvcc on the path, or use tensors on the CPU");
#endif
    }
    if (arguments.is_double())
        cpu(double());
    else
        cpu(float());
    arguments.require_all_used();
}

}  // namespace being::training
