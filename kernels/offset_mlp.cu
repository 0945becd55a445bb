#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/offset_mlp.h"

namespace being::cuda {
namespace {

constexpr int kRing = 4;    // activation fragments in flight between shared memory and the tensor cores
constexpr int kGroups = 8;  // parts in which the condition's inputs are summed

__device__ __forceinline__ uint4 load_weights(const uint4* address) {
    // Each fragment is wanted once per block: no line of the first-level cache should go for it.
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(address));
    return v;
}

__device__ __forceinline__ void multiply(float (&c)[4], const uint4& a, uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// max(0, .) of two floats as half floats, in one instruction.
__device__ __forceinline__ uint32_t rectified(float low, float high) {
    uint32_t v;
    asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
    return v;
}

__device__ __forceinline__ uint32_t rectified_sum(uint32_t halves, float2 addend) {
    const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&halves));
    return rectified(v.x + addend.x, v.y + addend.y);
}

// 16 rows of the result, as mma leaves them.
__device__ __forceinline__ void store(const OffsetMlpStage& stage, int tile, const float (&c)[2][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int point = tile * kOffsetMlpTile + lane / 4 + i % 4 / 2 * 8;
        const int output = i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (point < stage.points && output < stage.outputs)
            stage.offsets[size_t(point) * stage.outputs + output] = c[i / 4][i % 4];
    }
}

// W1c c, by all threads of the block: 8 columns and an eighth of the inputs each, then the eighths together.
template <int kWidth>
__device__ void add_condition(const OffsetMlpStage& stage, float* partial, float* sum) {
    const int column = threadIdx.x % (kWidth / 8), group = threadIdx.x / (kWidth / 8);
    const bool takes_part = threadIdx.x < kWidth;
    const auto* weight = reinterpret_cast<const uint4*>(stage.condition_weight);
    float s[8] = {};
#pragma unroll 4
    for (int i = takes_part ? group : stage.conditions; i < stage.conditions; i += kGroups) {
        const uint4 w = load_weights(weight + i * (kWidth / 8) + column);
        const float c = stage.condition[i];
        const uint32_t pair[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&pair[j]));
            s[2 * j] += v.x * c;
            s[2 * j + 1] += v.y * c;
        }
    }
    if (takes_part) {
        auto* out = reinterpret_cast<float4*>(partial + group * kWidth + column * 8);
        out[0] = {s[0], s[1], s[2], s[3]};
        out[1] = {s[4], s[5], s[6], s[7]};
    }
    __syncthreads();
    if (takes_part) {
        float total = 0;
#pragma unroll
        for (int i = 0; i < kGroups; ++i) total += partial[i * kWidth + threadIdx.x];
        sum[threadIdx.x] = total;
    }
    __syncthreads();
}

// Accumulators of 16 output columns begin as their biases.
__device__ __forceinline__ void start_output(const OffsetMlpStage& stage, int lane, float (&c)[2][4]) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
        const auto v = __ldg(reinterpret_cast<const float2*>(stage.output_bias + n * 8 + lane % 4 * 2));
        c[n][0] = c[n][2] = v.x;
        c[n][1] = c[n][3] = v.y;
    }
}

// offsets = W_o relu(... relu(W_2 relu(W1p p + b1 + W1c c) + b_2) ...) + b_o for every Gaussian.
//
// A block takes kTiles x 16 rows through all layers. Warp w owns the 32 output columns from 32 w on and holds them, all
// rows, in its accumulators; so each weight is wanted by one warp alone and goes from the second-level cache straight
// into its registers, as fragments four steps ahead, without shared memory or a barrier. Only activations cross between
// warps: through shared memory, in fragment order, which the accumulators of one layer already have for the next one.
// Two buffers and one barrier per layer; where shared memory has room for one, two barriers.
//
// Bound, 5 products of 256 x 256: 655 kFLOP per Gaussian. Activations and weights take 1.25 clocks of 128 bytes per mma
// at 128 rows from shared memory and the first-level cache, against 1.5 that mma.sync takes on Hopper and 2 on Ampere;
// weights are 20 bytes per clock and multiprocessor from the second-level cache.
// Measured, H200, 13,453 and 50,000 points (7 and 8 tiles): 24.7 and 72.7 us, about two thirds of what mma.sync can do.
// Tried and lost: a loop over the steps that is not unrolled, 26.7 and 76.3, and with weights two steps ahead 27.6 and
// 79.4; one buffer of activations 25.0 and 72.9; 8 instead of 7 tiles for 13,453 points 27.1.
template <int kWidth, int kTiles>
__global__ void __launch_bounds__(kWidth, 1) offset_mlp(const __grid_constant__ OffsetMlpStage stage, int buffers) {
    constexpr int kSteps = kWidth / 16, kTileVectors = kSteps * 32, kBuffer = kTiles * kTileVectors;
    static_assert(kSteps % kOffsetMlpAhead == 0 && kTiles * kTileVectors == 2 * kTiles * kWidth);
    extern __shared__ uint4 shared[];
    __shared__ float condition[kWidth];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    // Rows of the next pass are under way while this one ends.
    const auto* cache = reinterpret_cast<const uint4*>(stage.positional);
    const int all_tiles = (stage.points + kOffsetMlpTile - 1) / kOffsetMlpTile;
    uint4 row[2 * kTiles];
    const auto fetch = [&](int first_tile) {
        const auto* first = cache + size_t(first_tile) * kTileVectors + threadIdx.x;
        const int present = min(all_tiles - first_tile, kTiles) * kTileVectors - int(threadIdx.x);
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i) row[i] = i * kWidth < present ? __ldg(first + i * kWidth) : uint4{};
    };
    fetch(blockIdx.x * kTiles);
    add_condition<kWidth>(stage, reinterpret_cast<float*>(shared), condition);
    // The rows that a thread fetches lie half a tile apart: their columns are those of two steps.
    float2 share[2][2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int column = (warp + i / 2 * (kSteps / 2)) * 16 + i % 2 * 8 + lane % 4 * 2;
        share[i / 2][i % 2] = *reinterpret_cast<const float2*>(condition + column);
    }

    for (int first_tile = blockIdx.x * kTiles; first_tile < all_tiles; first_tile += gridDim.x * kTiles) {
        const auto* weight = reinterpret_cast<const uint4*>(stage.hidden_weight) + (warp * 2 * 32 + lane);
        uint4 b[kOffsetMlpAhead][2];
#pragma unroll
        for (int i = 0; i < kOffsetMlpAhead; ++i) {
            b[i][0] = load_weights(weight);
            b[i][1] = load_weights(weight + 32);
            weight += kTileVectors;
        }

        // First layer: what is cached, and the condition's share.
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i) {
            const int v = i * kWidth + int(threadIdx.x);
            const float2 low = share[i % 2][0], high = share[i % 2][1];
            shared[v] = {rectified_sum(row[i].x, low), rectified_sum(row[i].y, low), rectified_sum(row[i].z, high),
                         rectified_sum(row[i].w, high)};
        }
        const float* bias = stage.hidden_bias + warp * 32 + lane % 4 * 2;
        float2 start[4];
#pragma unroll
        for (int n = 0; n < 4; ++n) start[n] = __ldg(reinterpret_cast<const float2*>(bias + n * 8));
        __syncthreads();

        uint4* from = shared;
        uint4* to = buffers == 2 ? shared + kBuffer : shared;
        for (int layer = 0; layer < stage.products; ++layer) {
            float c[kTiles][4][4];
#pragma unroll
            for (int m = 0; m < kTiles; ++m)
#pragma unroll
                for (int n = 0; n < 4; ++n) {
                    c[m][n][0] = c[m][n][2] = start[n].x;
                    c[m][n][1] = c[m][n][3] = start[n].y;
                }
            // Fragments in the order in which they are multiplied: i = step * kTiles + tile, kRing of them in flight.
            const uint4* a = from + lane;
            uint4 ring[kRing];
#pragma unroll
            for (int i = 0; i < kRing; ++i) ring[i] = a[(i % kTiles * kSteps + i / kTiles) * 32];
// Unrolled, or the weights' loads all end up behind the last product of a turn.
#pragma unroll
            for (int step = 0; step < kSteps; step += kOffsetMlpAhead) {
#pragma unroll
                for (int s = 0; s < kOffsetMlpAhead; ++s) {
#pragma unroll
                    for (int m = 0; m < kTiles; ++m) {
                        const int i = s * kTiles + m, next = i + kRing;
                        const uint4 now = ring[i % kRing];
                        multiply(c[m][0], now, b[s][0].x, b[s][0].y);
                        multiply(c[m][1], now, b[s][0].z, b[s][0].w);
                        multiply(c[m][2], now, b[s][1].x, b[s][1].y);
                        multiply(c[m][3], now, b[s][1].z, b[s][1].w);
                        if (next / kTiles < kOffsetMlpAhead || step + kOffsetMlpAhead < kSteps)
                            ring[i % kRing] = a[(next % kTiles * kSteps + next / kTiles) * 32];
                    }
                    b[s][0] = load_weights(weight);
                    b[s][1] = load_weights(weight + 32);
                    weight += kTileVectors;
                }
                a += kOffsetMlpAhead * 32;
            }
            bias += kWidth;
#pragma unroll
            for (int n = 0; n < 4; ++n) start[n] = __ldg(reinterpret_cast<const float2*>(bias + n * 8));
            if (buffers == 1) __syncthreads();
#pragma unroll
            for (int m = 0; m < kTiles; ++m)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const auto &low = c[m][2 * half], &high = c[m][2 * half + 1];
                    to[(m * kSteps + warp * 2 + half) * 32 + lane] = {
                        rectified(low[0], low[1]), rectified(low[2], low[3]), rectified(high[0], high[1]),
                        rectified(high[2], high[3])};
                }
            __syncthreads();
            uint4* const other = from;
            from = to;
            to = other;
        }

        // Output layer: 16 columns, a tile of rows per warp.
        fetch(first_tile + int(gridDim.x) * kTiles);
        const auto* last = reinterpret_cast<const uint4*>(stage.output_weight) + lane;
        for (int m = warp; m < kTiles; m += kWidth / 32) {
            float c[2][4];
            start_output(stage, lane, c);
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
                const uint4 w = __ldg(last + step * 32), a = from[(m * kSteps + step) * 32 + lane];
                multiply(c[0], a, w.x, w.y);
                multiply(c[1], a, w.z, w.w);
            }
            store(stage, first_tile + m, c);
        }
        __syncthreads();  // before the next pass writes where this one reads
    }
}

// ---------------------------------------------------------------- Hopper's own instructions

constexpr int kHopperWidth = 256, kHopperConsumers = 256, kHopperThreads = kHopperConsumers + 128;
constexpr int kHopperRows = 128;                               // of a block: two warpgroups of 64
constexpr int kHopperSteps = 4;                                // of 16 inputs in a slice
constexpr int kHopperStepBytes = 16 * kHopperWidth * 2;        // 8 KiB
constexpr int kHopperSlice = kHopperSteps * kHopperStepBytes;  // 32 KiB
constexpr int kHopperStages = 6;                               // slices in shared memory: a layer and a half

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return uint32_t(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}

// By one lane of the warp, without a branch around it: wgmma in flight would be waited for at one.
__device__ __forceinline__ void barrier_arrive(uint64_t* barrier, int lane) {
    asm volatile(
        "{\n"
        ".reg .pred first;\n"
        "setp.eq.s32 first, %1, 0;\n"
        "@first mbarrier.arrive.shared::cta.b64 _, [%0];\n"
        "}" ::"r"(shared_address(barrier)),
        "r"(lane)
        : "memory");
}

__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}

// Starts a copy of one slice; the barrier's phase ends when all of it has come.
__device__ __forceinline__ void copy_slice(void* to, const void* from, uint64_t* barrier) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(kHopperSlice)
                 : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(kHopperSlice), "r"(shared_address(barrier))
                 : "memory");
}

// What tells the tensor cores where 16 inputs of 256 outputs lie: 8 x 8 matrices of 128 bytes, neighbours along the
// outputs 128 bytes apart, along the inputs 4 KiB; no swizzle.
__device__ __forceinline__ uint64_t weights_descriptor(uint32_t address) {
    constexpr uint64_t kAlongInputs = 32 * 128, kAlongOutputs = 128;
    return (uint64_t(address & 0x3ffff) >> 4) | kAlongInputs >> 4 << 16 | kAlongOutputs >> 4 << 32;
}

// 64 rows times 16 inputs, of registers, by 256 outputs, of shared memory. Starts; wgmma_wait ends.
__device__ __forceinline__ void wgmma(float (&d)[128], const uint32_t (&a)[4], uint64_t weights, int accumulate) {
#define BEING_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define BEING_D16(i) BEING_D4(i), BEING_D4(i + 4), BEING_D4(i + 8), BEING_D4(i + 12)
#define BEING_D64(i) BEING_D16(i), BEING_D16(i + 16), BEING_D16(i + 32), BEING_D16(i + 48)
    asm volatile(
        "{\n"
        ".reg .pred accumulate;\n"
        "setp.ne.b32 accumulate, %133, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "{%128, %129, %130, %131}, %132, accumulate, 1, 1, 0;\n"
        "}"
        : BEING_D64(0), BEING_D64(64)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(weights), "r"(accumulate));
#undef BEING_D4
#undef BEING_D16
#undef BEING_D64
}

// The two warpgroups multiply in turns, a layer each: one waits for its turn, the other one opens it.
__device__ __forceinline__ void wait_for_turn(int warpgroup) {
    asm volatile("bar.sync %0, %1;" ::"r"(1 + warpgroup), "n"(kHopperConsumers) : "memory");
}

__device__ __forceinline__ void open_turn(int warpgroup) {
    asm volatile("bar.arrive %0, %1;" ::"r"(1 + warpgroup), "n"(kHopperConsumers) : "memory");
}

template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// The same with wgmma, for layers of 256 and machine code of sm_90a; empty in any other code, which shows in its shared
// memory. Two warpgroups of 64 rows each keep their activations in registers throughout: what a layer accumulates is,
// rectified and packed, the next layer's first operand. Weights go through shared memory, 32 KiB slices of a ring that
// one more thread keeps filled by bulk copies; both warpgroups read a slice before it is given back. They multiply in
// turns, so that one rectifies and packs while the other one keeps the tensor cores busy.
//
// Bound, 5 products: 128 clocks per 64 rows and 16 inputs, 20,500 of a pass of 128 rows (12 us; three for 50,000 points
// on 132 multiprocessors); 32 bytes of weights per clock and multiprocessor from the second-level cache.
// Measured, H200, 13,453 and 50,000 points: 17.7 and 45.4 us; tensor cores busy 73 % of the time, the second-level
// cache at 29 % of its bandwidth. The kernel above, which this one replaces: 24.7 and 72.7.
// Tried and lost: without turns 19.7 and 50.7; also without fetching the next pass's rows early 20.1 and 51.3. Slices
// that pairs of blocks share through multicast copies, 24.1 and 61.5, and 23.0 and 59.0 without turns: the second-level
// cache is not what it waits for.
__global__ void __launch_bounds__(kHopperThreads, 1) offset_mlp_hopper(const __grid_constant__ OffsetMlpStage stage) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    constexpr int kSteps = kHopperWidth / 16, kSlices = kSteps / kHopperSteps;
    extern __shared__ __align__(1024) unsigned char slices[];
    __shared__ float partial[kGroups * kHopperWidth], condition[kHopperWidth];
    __shared__ uint64_t full[kHopperStages], empty[kHopperStages];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int passes = (stage.points + kHopperRows - 1) / kHopperRows;

    if (threadIdx.x == 0) {
        for (int i = 0; i < kHopperStages; ++i) {
            barrier_init(&full[i], 1);
            barrier_init(&empty[i], kHopperConsumers / 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }

    // Rows of the next pass are under way while this one ends.
    constexpr int kTiles = kHopperRows / kOffsetMlpTile;
    const int all_tiles = (stage.points + kOffsetMlpTile - 1) / kOffsetMlpTile;
    uint4 row[kSteps];
    const auto fetch = [&](int tile) {
        const auto* cache = reinterpret_cast<const uint4*>(stage.positional) + size_t(tile) * kSteps * 32 + lane;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) row[step] = tile < all_tiles ? __ldg(cache + step * 32) : uint4{};
    };
    if (warp < kTiles) fetch(blockIdx.x * kTiles + warp);
    add_condition<kHopperWidth>(stage, partial, condition);

    int turn = 0;        // of the ring
    uint32_t phase = 0;  // of its barriers: changes whenever the ring has gone round
    const auto advance = [&] {
        if (++turn == kHopperStages) {
            turn = 0;
            phase ^= 1;
        }
    };

    const int warpgroup = __shfl_sync(~0u, int(threadIdx.x) / 128, 0);
    if (warpgroup == kHopperConsumers / 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x != kHopperConsumers) return;
        const auto* weights = reinterpret_cast<const unsigned char*>(stage.hidden_weight);
        for (int pass = blockIdx.x; pass < passes; pass += gridDim.x)
            for (int slice = 0; slice < stage.products * kSlices; ++slice) {
                barrier_wait(&empty[turn], phase ^ 1);
                copy_slice(slices + turn * kHopperSlice, weights + size_t(slice) * kHopperSlice, &full[turn]);
                advance();
            }
        return;
    }

    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    if (warpgroup == 1) open_turn(0);
    for (int pass = blockIdx.x; pass < passes; pass += gridDim.x) {
        const int tile = pass * kTiles + warp;
        uint32_t a[kSteps][4];
        float d[128];

        // First layer: what is cached, and the condition's share.
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            const auto* share = reinterpret_cast<const float2*>(condition + step * 16 + lane % 4 * 2);
            a[step][0] = rectified_sum(row[step].x, share[0]);
            a[step][1] = rectified_sum(row[step].y, share[0]);
            a[step][2] = rectified_sum(row[step].z, share[4]);
            a[step][3] = rectified_sum(row[step].w, share[4]);
        }

        const auto* bias = reinterpret_cast<const float2*>(stage.hidden_bias + lane % 4 * 2);
        for (int layer = 0; layer < stage.products; ++layer) {
            int before = 0;
            wait_for_turn(warpgroup);
#pragma unroll
            for (int slice = 0; slice < kSlices; ++slice) {
                barrier_wait(&full[turn], phase);
                asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
                const uint64_t weights = weights_descriptor(shared_address(slices) + turn * kHopperSlice);
#pragma unroll
                for (int s = 0; s < kHopperSteps; ++s)
                    wgmma(d, a[slice * kHopperSteps + s], weights + s * (kHopperStepBytes >> 4), slice + s > 0);
                asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
                // The other one's products queue behind these. Nobody waits for a turn after the last one.
                const bool ends = layer + 1 == stage.products && pass + int(gridDim.x) >= passes;
                if (slice == kSlices - 1 && (warpgroup == 0 || !ends)) open_turn(1 - warpgroup);
                if (slice > 0) {
                    wgmma_wait<1>();
                    barrier_arrive(&empty[before], lane);
                }
                before = turn;
                advance();
            }
            wgmma_wait<0>();
            barrier_arrive(&empty[before], lane);
            // Nobody may look at the results before they are there.
#pragma unroll
            for (int i = 0; i < 128; ++i) asm volatile("" : "+f"(d[i])::"memory");
#pragma unroll
            for (int n = 0; n < 32; ++n) {
                const float2 b = __ldg(bias + n * 4);
                a[n / 2][n % 2 * 2] = rectified(d[4 * n] + b.x, d[4 * n + 1] + b.y);
                a[n / 2][n % 2 * 2 + 1] = rectified(d[4 * n + 2] + b.x, d[4 * n + 3] + b.y);
            }
            bias += kHopperWidth / 2;
        }

        // Output layer: 16 columns, by mma.
        fetch(tile + int(gridDim.x) * kTiles);
        float c[2][4];
        start_output(stage, lane, c);
        const auto* last = reinterpret_cast<const uint4*>(stage.output_weight) + lane;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            const uint4 w = __ldg(last + step * 32), x = {a[step][0], a[step][1], a[step][2], a[step][3]};
            multiply(c[0], x, w.x, w.y);
            multiply(c[1], x, w.z, w.w);
        }
        store(stage, tile, c);
    }
#endif
}

// One column per thread, 16 rows per block, in float: runs once.
__global__ void offset_mlp_cache(const OffsetMlpCacheStage stage) {
    const int column = threadIdx.x, first = blockIdx.x * kOffsetMlpTile;
    float sum[kOffsetMlpTile];
#pragma unroll
    for (int r = 0; r < kOffsetMlpTile; ++r) sum[r] = stage.bias[column];
    for (int i = 0; i < stage.inputs; ++i) {
        const float w = stage.weight[size_t(i) * stage.width + column];
#pragma unroll
        for (int r = 0; r < kOffsetMlpTile; ++r)
            if (first + r < stage.points) sum[r] += w * stage.positional[size_t(first + r) * stage.inputs + i];
    }
    auto* tile = reinterpret_cast<__half*>(stage.cache) + size_t(first) * stage.width;
    const int inside = column % 16;
#pragma unroll
    for (int r = 0; r < kOffsetMlpTile; ++r) {
        const int lane = r % 8 * 4 + inside % 8 / 2;
        tile[(column / 16 * 32 + lane) * 8 + (inside / 8 * 2 + r / 8) * 2 + inside % 2] = __float2half_rn(sum[r]);
    }
}

using Kernel = void (*)(OffsetMlpStage, int);

struct Variant {
    int width, tiles;
    Kernel kernel;
};

// Narrow layers leave room for several blocks per multiprocessor, so that their number of rows matters little.
constexpr Variant kVariants[] = {
    {64, 8, offset_mlp<64, 8>},   {128, 8, offset_mlp<128, 8>}, {256, 4, offset_mlp<256, 4>},
    {256, 5, offset_mlp<256, 5>}, {256, 6, offset_mlp<256, 6>}, {256, 7, offset_mlp<256, 7>},
    {256, 8, offset_mlp<256, 8>},
};

// False where this build, or this device, has none.
cudaError_t plan_hopper(int points, int multiprocessors, OffsetMlpPlan* plan, bool* possible) {
    constexpr size_t kBytes = size_t(kHopperStages) * kHopperSlice;
    cudaFuncAttributes attributes{};
    cudaError_t error = cudaFuncGetAttributes(&attributes, offset_mlp_hopper);
    *possible = error == cudaSuccess && attributes.sharedSizeBytes > 0;
    if (!*possible) return error;
    error = cudaFuncSetAttribute(offset_mlp_hopper, cudaFuncAttributeMaxDynamicSharedMemorySize, int(kBytes));
    const int passes = (points + kHopperRows - 1) / kHopperRows;
    *plan = {true, kHopperRows / kOffsetMlpTile, std::min(passes, multiprocessors), 1, kBytes};
    return error;
}

}  // namespace

cudaError_t plan_offset_mlp(int width, int products, int points, OffsetMlpPlan* plan) {
    int device = 0, multiprocessors = 0, largest_shared = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&largest_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error == cudaSuccess && width == kHopperWidth && products > 0) {
        bool possible = false;
        error = plan_hopper(points, multiprocessors, plan, &possible);
        if (possible) return error;
    }
    if (error != cudaSuccess) return error;
    const int all_tiles = (points + kOffsetMlpTile - 1) / kOffsetMlpTile;
    float best = 0;
    *plan = {};
    for (const Variant& variant : kVariants) {
        if (variant.width != width) continue;
        const size_t buffer = size_t(variant.tiles) * kOffsetMlpTile * width * sizeof(uint16_t);
        const int room = largest_shared - width * int(sizeof(float));
        const int buffers = 2 * buffer <= size_t(room) ? 2 : 1;
        const size_t bytes = buffers * buffer;
        error = cudaFuncSetAttribute(variant.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
        if (error != cudaSuccess) return error;
        int resident = 0;
        error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, variant.kernel, width, bytes);
        if (error != cudaSuccess) return error;
        if (resident == 0) continue;
        const int passes = (all_tiles + variant.tiles - 1) / variant.tiles;
        const int rounds = (passes + resident * multiprocessors - 1) / (resident * multiprocessors);
        // What does not shrink with the rows of a pass - ends of layers, first and output layer - weighs as much as one
        // tile.
        const float time = float(rounds) * float(variant.tiles + 1);
        if (plan->tiles != 0 && time >= best) continue;
        best = time;
        *plan = {false, variant.tiles, std::min(passes, resident * multiprocessors), buffers, bytes};
    }
    return plan->tiles ? cudaSuccess : cudaErrorInvalidConfiguration;
}

void launch_offset_mlp_cache(const OffsetMlpCacheStage& stage, cudaStream_t stream) {
    const int tiles = (stage.points + kOffsetMlpTile - 1) / kOffsetMlpTile;
    offset_mlp_cache<<<tiles, stage.width, 0, stream>>>(stage);
}

void launch_offset_mlp(const OffsetMlpStage& stage, const OffsetMlpPlan& plan, cudaStream_t stream) {
    if (plan.hopper) {
        offset_mlp_hopper<<<plan.blocks, kHopperThreads, plan.shared_bytes, stream>>>(stage);
        return;
    }
    for (const Variant& variant : kVariants)
        if (variant.width == stage.width && variant.tiles == plan.tiles)
            variant.kernel<<<plan.blocks, stage.width, plan.shared_bytes, stream>>>(stage, plan.buffers);
}

}  // namespace being::cuda
