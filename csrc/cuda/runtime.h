// The CUDA runtime as the engine uses it: errors as exceptions, memory and streams that free themselves.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace being::cuda {

// Anything the device or its driver refuses; one line that says what and what to do. being_rt.errors.DeviceError.
struct DeviceFault : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct OutOfMemory : DeviceFault {
    using DeviceFault::DeviceFault;
};

// Throws for anything but cudaSuccess; `doing` completes "... failed while ...".
void check(cudaError_t error, const char* doing);

struct DeviceInfo {
    int index, major, minor, multiprocessors;
    size_t memory;
    std::string name;
    bool supported;  // by the machine code or PTX of this build
};

// Devices of this machine; empty, with the reason in `why` if wanted, where there is no driver or no device.
std::vector<DeviceInfo> devices(std::string* why = nullptr);

// The architectures that this build has code for, as CMake names them.
std::string built_architectures();

// Throws DeviceFault unless device `index` exists and this build has code for it.
DeviceInfo usable_device(int index);

// Makes a device current for a scope: an embedding application may use another one.
class OnDevice {
  public:
    explicit OnDevice(int device);
    ~OnDevice();
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

  private:
    int before_ = -1;
};

// Memory of one kind, freed with its owner. T is trivial.
template <class T, bool kPinned>
class Array {
    static_assert(std::is_trivially_copyable_v<T>);

  public:
    Array() = default;
    explicit Array(size_t count) { resize(count); }
    Array(Array&& other) noexcept { swap(other); }
    Array& operator=(Array&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Array() { release(); }

    // Contents are zero afterwards; on failure the array is empty.
    void resize(size_t count) {
        release();
        if (count == 0) return;
        const size_t bytes = count * sizeof(T);
        if constexpr (kPinned) {
            check(cudaHostAlloc(reinterpret_cast<void**>(&data_), bytes, cudaHostAllocMapped | cudaHostAllocPortable),
                  "allocating pinned memory");
            std::memset(static_cast<void*>(data_), 0, bytes);
        } else {
            check(cudaMalloc(reinterpret_cast<void**>(&data_), bytes), "allocating device memory");
            size_ = count;
            check(cudaMemset(data_, 0, bytes), "clearing device memory");
        }
        size_ = count;
    }
    // Device arrays only: a copy of `values`.
    void upload(const T* values, size_t count) {
        resize(count);
        if (count) check(cudaMemcpy(data_, values, count * sizeof(T), cudaMemcpyHostToDevice), "uploading");
    }
    template <class Container>
    void upload(const Container& values) {
        upload(values.data(), values.size());
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }
    size_t bytes() const { return size_ * sizeof(T); }
    T& operator[](size_t i) { return data_[i]; }  // pinned arrays only
    const T& operator[](size_t i) const { return data_[i]; }

  private:
    void release() {
        if (data_) kPinned ? cudaFreeHost(data_) : cudaFree(data_);
        data_ = nullptr;
        size_ = 0;
    }
    void swap(Array& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }

    T* data_ = nullptr;
    size_t size_ = 0;
};

template <class T>
using DeviceArray = Array<T, false>;
template <class T>
using PinnedArray = Array<T, true>;

class Stream {
  public:
    Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream"); }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    operator cudaStream_t() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

class Event {
  public:
    explicit Event(bool timing = false) {
        check(cudaEventCreateWithFlags(&event_, timing ? cudaEventDefault : cudaEventDisableTiming),
              "creating an event");
    }
    ~Event() {
        if (event_) cudaEventDestroy(event_);
    }
    Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
    Event& operator=(Event&&) = delete;
    operator cudaEvent_t() const { return event_; }

  private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace being::cuda
