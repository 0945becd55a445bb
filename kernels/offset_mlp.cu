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

// W1c c, by all threads of the block: 8 columns and an eighth of the inputs each, then the eighths together.
template <int kWidth>
__device__ void add_condition(const OffsetMlpStage& stage, float* partial, float* sum) {
    const int column = threadIdx.x % (kWidth / 8), group = threadIdx.x / (kWidth / 8);
    const auto* weight = reinterpret_cast<const uint4*>(stage.condition_weight);
    float s[8] = {};
#pragma unroll 4
    for (int i = group; i < stage.conditions; i += kGroups) {
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
    auto* out = reinterpret_cast<float4*>(partial + group * kWidth + column * 8);
    out[0] = {s[0], s[1], s[2], s[3]};
    out[1] = {s[4], s[5], s[6], s[7]};
    __syncthreads();
    float total = 0;
#pragma unroll
    for (int i = 0; i < kGroups; ++i) total += partial[i * kWidth + threadIdx.x];
    sum[threadIdx.x] = total;
    __syncthreads();
}

// offsets = W_o relu(... relu(W_2 relu(W1p p + b1 + W1c c) + b_2) ...) + b_o for every Gaussian.
//
// A block takes kTiles x 16 rows through all layers. Warp w owns the 32 output columns from 32 w on and holds them, all
// rows, in its accumulators; so each weight is wanted by one warp alone and goes from the second-level cache straight
// into its registers, as fragments four steps ahead, without shared memory or a barrier. Only activations cross between
// warps: through shared memory, in fragment order, which the accumulators of one layer already have for the next one.
// Two buffers and one barrier per layer; where shared memory has room for one, two barriers.
//
// Bound, 5 products of 256 x 256: 655 kFLOP per Gaussian. Shared memory and weights: 1.25 clocks of 128 bytes per mma
// at 128 rows, against 1.6 that mma.sync takes on Hopper and 2 on Ampere; weights: 20 bytes per clock and
// multiprocessor from the second-level cache.
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
        const int present = min(all_tiles - first_tile, kTiles) * kTileVectors;
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i) {
            const int v = i * kWidth + int(threadIdx.x);
            row[i] = v < present ? __ldg(cache + size_t(first_tile) * kTileVectors + v) : uint4{};
        }
    };
    fetch(blockIdx.x * kTiles);
    add_condition<kWidth>(stage, reinterpret_cast<float*>(shared), condition);

    for (int first_tile = blockIdx.x * kTiles; first_tile < all_tiles; first_tile += gridDim.x * kTiles) {
        const auto* weight = reinterpret_cast<const uint4*>(stage.hidden_weight) + (warp * 2 * 32 + lane);
        uint4 b[kOffsetMlpAhead][2];
#pragma unroll
        for (int i = 0; i < kOffsetMlpAhead; ++i) {
            b[i][0] = load_weights(weight);
            b[i][1] = load_weights(weight + 32);
            weight += kTileVectors;
        }
        const float* bias = stage.hidden_bias + warp * 32 + lane % 4 * 2;
        float2 start[4];
#pragma unroll
        for (int n = 0; n < 4; ++n) start[n] = __ldg(reinterpret_cast<const float2*>(bias + n * 8));

        // First layer: what is cached, and the condition's share.
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i) {
            const int v = i * kWidth + int(threadIdx.x);
            const float* share = condition + v / 32 % kSteps * 16 + lane % 4 * 2;
            const float2 low = *reinterpret_cast<const float2*>(share),
                         high = *reinterpret_cast<const float2*>(share + 8);
            shared[v] = {rectified_sum(row[i].x, low), rectified_sum(row[i].y, low), rectified_sum(row[i].z, high),
                         rectified_sum(row[i].w, high)};
        }
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
#pragma unroll 1
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
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                const auto v = __ldg(reinterpret_cast<const float2*>(stage.output_bias + n * 8 + lane % 4 * 2));
                c[n][0] = c[n][2] = v.x;
                c[n][1] = c[n][3] = v.y;
            }
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
                const uint4 w = __ldg(last + step * 32), a = from[(m * kSteps + step) * 32 + lane];
                multiply(c[0], a, w.x, w.y);
                multiply(c[1], a, w.z, w.w);
            }
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const int point = (first_tile + m) * 16 + lane / 4 + i % 4 / 2 * 8;
                const int output = i / 4 * 8 + lane % 4 * 2 + i % 2;
                if (point < stage.points && output < stage.outputs)
                    stage.offsets[size_t(point) * stage.outputs + output] = c[i / 4][i % 4];
            }
        }
        __syncthreads();  // before the next pass writes where this one reads
    }
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

}  // namespace

cudaError_t plan_offset_mlp(int width, int points, OffsetMlpPlan* plan) {
    int device = 0, multiprocessors = 0, largest_shared = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&largest_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
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
        *plan = {variant.tiles, std::min(passes, resident * multiprocessors), buffers, bytes};
    }
    return plan->tiles ? cudaSuccess : cudaErrorInvalidConfiguration;
}

void launch_offset_mlp_cache(const OffsetMlpCacheStage& stage, cudaStream_t stream) {
    const int tiles = (stage.points + kOffsetMlpTile - 1) / kOffsetMlpTile;
    offset_mlp_cache<<<tiles, stage.width, 0, stream>>>(stage);
}

void launch_offset_mlp(const OffsetMlpStage& stage, const OffsetMlpPlan& plan, cudaStream_t stream) {
    for (const Variant& variant : kVariants)
        if (variant.width == stage.width && variant.tiles == plan.tiles)
            variant.kernel<<<plan.blocks, stage.width, plan.shared_bytes, stream>>>(stage, plan.buffers);
}

}  // namespace being::cuda
