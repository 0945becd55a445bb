// How stages reach the device.
#pragma once

#include <cuda_runtime.h>

namespace being::cuda {

// The stage of a block's session. A single session's goes by value, as a kernel parameter, from where its pointers cost
// nothing to read; those of many lie in device memory.
template <class Stage>
struct Sessions {
    Stage first;
    const Stage* all;
};

template <bool kOne, class Stage>
__device__ inline Stage stage_of(const Sessions<Stage>& sessions, unsigned session) {
    if constexpr (kOne) return sessions.first;
    return sessions.all[session];
}

}  // namespace being::cuda
