#include "csrc/cuda/runtime.h"

#include <cstdlib>

namespace being::cuda {

void check(cudaError_t error, const char* doing) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // clears it, unless it is one that the context does not survive
    const std::string text = std::string("CUDA failed while ") + doing + ": " + cudaGetErrorString(error);
    if (error == cudaErrorMemoryAllocation) throw OutOfMemory(text + "; free device memory or draw fewer at once");
    throw DeviceFault(text);
}

std::string built_architectures() {
    return BEING_CUDA_ARCHITECTURES;
}

namespace {

// Machine code runs on its own major version from its own minor on ("89-real", "90"); PTX ("90", "90-virtual") on every
// later one.
bool has_code_for(int capability) {
    const std::string all = built_architectures() + " ";
    for (size_t begin = 0, end; (end = all.find(' ', begin)) != std::string::npos; begin = end + 1) {
        const std::string item = all.substr(begin, end - begin);
        const int built = std::atoi(item.c_str());
        const bool real = item.find("-virtual") == std::string::npos,
                   virtual_ = item.find("-real") == std::string::npos;
        if (real && built / 10 == capability / 10 && built <= capability) return true;
        if (virtual_ && built <= capability) return true;
    }
    return false;
}

}  // namespace

std::vector<DeviceInfo> devices(std::string* why) {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
        cudaGetLastError();
        int driver = 0;
        cudaDriverGetVersion(&driver);
        if (why) *why = driver == 0 ? "no NVIDIA driver" : cudaGetErrorString(error);
        return {};
    }
    if (count == 0 && why) *why = "no CUDA device";
    std::vector<DeviceInfo> result;
    for (int i = 0; i < count; ++i) {
        cudaDeviceProp p{};
        check(cudaGetDeviceProperties(&p, i), "reading a device's properties");
        result.push_back({i, p.major, p.minor, p.multiProcessorCount, p.totalGlobalMem, p.name,
                          has_code_for(10 * p.major + p.minor)});
    }
    return result;
}

DeviceInfo usable_device(int index) {
    std::string why;
    const std::vector<DeviceInfo> all = devices(&why);
    if (all.empty()) throw DeviceFault("no CUDA device: " + why + "; use device='cpu'");
    if (index < 0 || index >= int(all.size()))
        throw DeviceFault("no CUDA device " + std::to_string(index) + ", this machine has " +
                          std::to_string(all.size()));
    const DeviceInfo& info = all[size_t(index)];
    if (!info.supported) {
        const std::string number = std::to_string(10 * info.major + info.minor);
        throw DeviceFault("this build has no code for " + info.name + " (sm_" + number + "), only for " +
                          built_architectures() + "; rebuild: CMAKE_CUDA_ARCHITECTURES=" + number +
                          " pip install --force-reinstall --no-deps .");
    }
    return info;
}

OnDevice::OnDevice(int device) {
    int before = 0;
    check(cudaGetDevice(&before), "asking for the current device");
    if (before == device) return;
    check(cudaSetDevice(device), "choosing the device");
    before_ = before;
}

OnDevice::~OnDevice() {
    if (before_ >= 0) cudaSetDevice(before_);
}

}  // namespace being::cuda
