// Small matrix products on tensor cores, as a warp issues them; layouts are those of the PTX manual's mma.m16n8k8 and
// mma.m16n8k16.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace being::cuda {

__device__ inline uint32_t shared_address(const void* p) {
    return uint32_t(__cvta_generic_to_shared(p));
}

// Four 8x8 matrices of half floats from shared memory; lane i gives the address of row i of them all, 16 bytes.
__device__ inline void load_matrices(const void* row, uint32_t* fragments) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// One 8x8 matrix, transposed; lanes 0 to 7 give the addresses of its rows.
__device__ inline uint32_t load_matrix_transposed(const void* row) {
    uint32_t fragment;
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(fragment)
                 : "r"(shared_address(row))
                 : "memory");
    return fragment;
}

// Four 8x8 matrices, each transposed; lane i gives the address of row i of them all.
__device__ inline void load_matrices_transposed(const void* row, uint32_t* fragments) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// sums[8x8] += a[8x16] b[16x8]: bfloat16 in, floats out; the product's lower eight rows are left empty.
__device__ inline void multiply_8x16x8(float (&sums)[4], const uint32_t* a, const uint32_t* b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %5}, {%7, %8}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(0), "r"(a[1]), "r"(b[0]), "r"(b[1]));
}

// sums[16x8] += a[16x8] b[8x8]: half floats in, floats out.
__device__ inline void multiply_16x8x8(float (&sums)[4], const uint32_t* a, uint32_t b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
}

}  // namespace being::cuda
