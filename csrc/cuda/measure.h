// What measurements need of a device beyond drawing on it.
#pragma once

#include "csrc/cuda/runtime.h"

namespace being::cuda {

// Gigabytes per second, read and written bytes together, of a large copy on the device: the floor of what moves bytes.
double copy_bandwidth(int device);

// A part of a device: a stream whose kernels run on so many multiprocessors (a green context), so that one can see what
// a smaller device would do. Needs a driver of CUDA 12.5 or later.
class Partition {
  public:
    Partition(int device, int multiprocessors);
    ~Partition();
    Partition(const Partition&) = delete;
    Partition& operator=(const Partition&) = delete;

    cudaStream_t stream() const { return stream_; }
    int multiprocessors() const { return multiprocessors_; }  // what was given, which may be a few more

  private:
    int device_, multiprocessors_ = 0;
    void* context_ = nullptr;
    cudaStream_t stream_ = nullptr;
};

}  // namespace being::cuda
