#include "csrc/cuda/measure.h"

#include <cuda.h>

#include <algorithm>

namespace being::cuda {
namespace {

// A function of the driver, looked up at run time: the module must load where there is no driver.
template <class Function>
Function driver_function(const char* name) {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result{};
    const cudaError_t error = cudaGetDriverEntryPointByVersion(name, &entry, 12050, cudaEnableDefault, &result);
    if (error != cudaSuccess || result != cudaDriverEntryPointSuccess || !entry) {
        cudaGetLastError();
        throw DeviceFault(std::string("this driver has no ") + name + "; parts of a device need CUDA 12.5 or later");
    }
    return reinterpret_cast<Function>(entry);
}

void check_driver(CUresult result, const char* doing) {
    if (result == CUDA_SUCCESS) return;
    throw DeviceFault(std::string("CUDA failed while ") + doing + ": driver error " + std::to_string(int(result)));
}

}  // namespace

double copy_bandwidth(int device) {
    usable_device(device);
    const OnDevice on_device(device);
    constexpr size_t kBytes = size_t(1) << 29;
    constexpr int kCopies = 10;
    DeviceArray<uint8_t> from(kBytes), to(kBytes);
    const Stream stream;
    const Event begin(true), end(true);
    float best = 1e30f;
    for (int i = 0; i <= kCopies; ++i) {  // the first one warms up
        check(cudaEventRecord(begin, stream), "timing a copy");
        check(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, stream), "copying");
        check(cudaEventRecord(end, stream), "timing a copy");
        check(cudaEventSynchronize(end), "copying");
        float milliseconds = 0;
        check(cudaEventElapsedTime(&milliseconds, begin, end), "timing a copy");
        if (i > 0) best = std::min(best, milliseconds);
    }
    return 2.0 * double(kBytes) / (double(best) * 1e6);
}

Partition::Partition(int device, int multiprocessors) : device_(device) {
    const DeviceInfo info = usable_device(device);
    if (multiprocessors < 1 || multiprocessors > info.multiprocessors)
        throw DeviceFault("a part of " + info.name + " has 1 to " + std::to_string(info.multiprocessors) +
                          " multiprocessors, got " + std::to_string(multiprocessors));
    const OnDevice on_device(device);
    check(cudaFree(nullptr), "starting CUDA");
    CUdevResource all{}, part{}, rest{};
    unsigned groups = 1;
    check_driver(driver_function<decltype(&cuDeviceGetDevResource)>("cuDeviceGetDevResource")(CUdevice(device), &all,
                                                                                              CU_DEV_RESOURCE_TYPE_SM),
                 "asking for multiprocessors");
    check_driver(driver_function<decltype(&cuDevSmResourceSplitByCount)>("cuDevSmResourceSplitByCount")(
                     &part, &groups, &all, &rest, 0, unsigned(multiprocessors)),
                 "dividing a device");
    CUdevResourceDesc description{};
    check_driver(
        driver_function<decltype(&cuDevResourceGenerateDesc)>("cuDevResourceGenerateDesc")(&description, &part, 1),
        "describing a part of a device");
    CUgreenCtx context{};
    check_driver(driver_function<decltype(&cuGreenCtxCreate)>("cuGreenCtxCreate")(
                     &context, description, CUdevice(device), CU_GREEN_CTX_DEFAULT_STREAM),
                 "making a part of a device");
    context_ = context;
    CUstream stream{};
    check_driver(driver_function<decltype(&cuGreenCtxStreamCreate)>("cuGreenCtxStreamCreate")(
                     &stream, context, CU_STREAM_NON_BLOCKING, 0),
                 "making a stream of a part of a device");
    stream_ = stream;
    multiprocessors_ = int(part.sm.smCount);
}

Partition::~Partition() {
    if (stream_) cudaStreamDestroy(stream_);
    if (context_) {
        try {
            driver_function<decltype(&cuGreenCtxDestroy)>("cuGreenCtxDestroy")(static_cast<CUgreenCtx>(context_));
        } catch (const DeviceFault&) {  // it was there when the context was made
        }
    }
}

}  // namespace being::cuda
