// Two half floats in a word.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace being::cuda {

__device__ inline float2 unpack_halves(uint32_t packed) {
    return __half22float2(reinterpret_cast<const __half2&>(packed));
}

__device__ inline uint32_t pack_halves(float low, float high) {
    const __half2 packed = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(packed);
}

}  // namespace being::cuda
