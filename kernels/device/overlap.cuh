// Programmatic dependent launch (compute capability 9.0 and up): a kernel may start while the one before it ends, so
// that its launch and the loads that depend on no frame are hidden. Elsewhere kernels simply follow each other.
#pragma once

#include <cuda_runtime.h>

namespace being::cuda {

// Everything that earlier kernels wrote may be read after this, nothing before.
__device__ inline void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel's blocks may start, as far as there is room for them.
__device__ inline void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

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

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, bool overlap, cudaStream_t stream,
            Arguments... arguments) {
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = overlap ? 1 : 0;
    cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

}  // namespace being::cuda
