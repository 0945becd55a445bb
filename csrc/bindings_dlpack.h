// DLPack 0.x, the memory layout in which array libraries hand each other tensors (dmlc.github.io/dlpack): as much of it
// as an exporter of bytes on a CUDA device needs.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace being {

namespace dlpack {

struct Device {
    int32_t type, id;  // type 2: CUDA
};
struct DataType {
    uint8_t code, bits;  // code 1: unsigned integer
    uint16_t lanes;
};
struct Tensor {
    void* data;
    Device device;
    int32_t dimensions;
    DataType type;
    int64_t *shape, *strides;
    uint64_t byte_offset;
};
struct ManagedTensor {
    Tensor tensor;
    void* context;
    void (*deleter)(ManagedTensor*);
};

}  // namespace dlpack

// A capsule "dltensor" of uint8 over device memory, C-contiguous; `owner` lives as long as whoever takes it.
inline pybind11::capsule dlpack_capsule(void* data, const std::vector<int64_t>& shape, int device,
                                        std::shared_ptr<void> owner) {
    struct Export {
        dlpack::ManagedTensor managed;
        std::vector<int64_t> shape;
        std::shared_ptr<void> owner;
    };
    auto* result = new Export{{}, shape, std::move(owner)};
    result->managed.tensor = {data, {2, device}, int32_t(shape.size()), {1, 8, 1}, result->shape.data(), nullptr, 0};
    result->managed.context = result;
    result->managed.deleter = [](dlpack::ManagedTensor* self) { delete static_cast<Export*>(self->context); };
    // Whoever takes the tensor renames the capsule; one that nobody took is freed with it.
    return pybind11::capsule(&result->managed, "dltensor", [](PyObject* capsule) {
        if (!PyCapsule_IsValid(capsule, "dltensor")) return;
        auto* managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
        managed->deleter(managed);
    });
}

}  // namespace being
