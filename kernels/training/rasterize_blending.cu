// Second half of the differentiable rasterizer: blending a tile's sorted splats, and the derivative of that.
//
//   alpha_i = min(0.999, o_i exp(-1/2 d^T Q_i d)), T_i = prod_{j<i} (1 - alpha_j), S = sum T_i alpha_i f_i
//
// with features f = (red, green, blue, depth), and alpha's own sum 1 - T_end. Backward, with g the gradient of S and
// g_A that of the last,
//
//   dL/df_i = sum over pixels of T_i alpha_i g
//   dL/dalpha_i = T_i (g . f_i) - (R_i - g_A T_end) / (1 - alpha_i),  R_i = sum_{j>i} T_j alpha_j (g . f_j)
//
// R is had from front to back too, as g . S less what lies before, so that both passes do the same, stop at the same
// splat, and nothing but S is kept from one to the other. A warp takes a tile of 8x8 pixels, a lane two of them, one
// above the other. A splat's exponent is rewritten as a polynomial of the pixel's place (X, Y) in the tile; the
// gradients of mean, conic and opacity are then its moments sum q (1, X, Y, X^2, XY, Y^2), q = alpha dL/dalpha, which
// are a matrix product [features x pixels] [pixels x splats], as sum g T alpha is: tensor cores add up what would take
// 31 shuffles a splat. q and T alpha are given to them as the sum of two bfloat16, 16 bits in all; pixels' places are
// exact in one.
#include "kernels/common/blend.h"
#include "kernels/device/matrix.cuh"
#include "kernels/device/warp_sort.cuh"
#include "kernels/training/rasterize.h"

namespace being::training {
namespace {

using cuda::kAllLanes;

constexpr int kTile = kTileSize, kPixels = kTile * kTile, kRowsPerLane = 2;
constexpr int kBlockColumns = 2, kBlockRows = 2, kWarps = kBlockColumns * kBlockRows, kThreads = 32 * kWarps;
constexpr int kStep = 8;      // splats whose moments are summed at once
constexpr int kFeatures = 4;  // red, green, blue, depth
constexpr int kMoments = 6;
static_assert(kTile == 8 && kPixels == 2 * 32, "two pixels per lane");

// alpha = 2^(constant + x (along_x + x squared_x) + y (along_y + y squared_y) + mixed x y), from the tile's middle.
struct Staged {
    float4 first[32];   // constant, along_x, along_y, squared_x
    float4 second[32];  // squared_y, mixed, red, green
    float2 third[32];   // blue, depth
};

struct Place {
    int frame, left, top, tile;
    bool inside;
};

__device__ Place place_of(const RasterizeStage<float>& s, unsigned warp) {
    const int columns = tiles_across(s.width), rows = tiles_across(s.height),
              across = (columns + kBlockColumns - 1) / kBlockColumns;
    const int column = int(blockIdx.x) % across * kBlockColumns + int(warp) % kBlockColumns,
              row = int(blockIdx.x) / across * kBlockRows + int(warp) / kBlockColumns;
    return {int(blockIdx.y), column * kTile, row * kTile, (int(blockIdx.y) * rows + row) * columns + column,
            column < columns && row < rows};
}

__device__ float fast_power_of_two(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

__device__ float fast_reciprocal(float x) {
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// What decides where a splat is drawn, relative to a tile's middle.
struct Relative {
    float x, y, a, b, c, opacity;
};

__device__ Relative load_relative(const float* splats, uint32_t index, float middle_x, float middle_y) {
    const auto* words = reinterpret_cast<const float4*>(splats + size_t(index) * kSplatFloats);
    const float4 p = words[0];
    const float2 q = *reinterpret_cast<const float2*>(words + 1);
    return {p.x - middle_x, p.y - middle_y, p.z, p.w, q.x, q.y};
}

// Copies splat `index` to place `lane` of the stage.
__device__ void stage_splat(const float* splats, uint32_t index, float middle_x, float middle_y, Staged& staged,
                            unsigned lane) {
    const Relative splat = load_relative(splats, index, middle_x, middle_y);
    const auto* words = reinterpret_cast<const float4*>(splats + size_t(index) * kSplatFloats);
    const float4 q = words[1], r = words[2];
    // a (X - x + shear (Y - y))^2 + rest (Y - y)^2, multiplied out: no term of a needle's is a difference of large
    // ones.
    const float values[6]{splat.x, splat.y, splat.a, splat.b, splat.c, splat.opacity};
    SplatShape<float> shape;
    make_splat_shape(values, shape);
    const float across = __fmaf_rn(shape.shear, splat.y, splat.x);
    const float along_x = -2.0f * shape.a * across,
                along_y = -2.0f * __fmaf_rn(shape.a * shape.shear, across, shape.rest * splat.y);
    const float constant = shape.exponent(across, shape.row(splat.y));
    staged.first[lane] = {constant, along_x, along_y, shape.a};
    staged.second[lane] = {__fmaf_rn(shape.a * shape.shear, shape.shear, shape.rest), 2.0f * shape.a * shape.shear, q.z,
                           q.w};
    staged.third[lane] = {r.x, r.y};
}

__device__ void stage_nothing(Staged& staged, unsigned lane) {
    staged.first[lane] = {-1e4f, 0, 0, 0};
    staged.second[lane] = {0, 0, 0, 0};
    staged.third[lane] = {0, 0};
}

// What a splat has in a lane's two pixels.
struct Sample {
    float alpha[kRowsPerLane];  // 0 where it is not drawn
    float colour[kFeatures];
};

// Both passes must find the same: this is all that decides what is drawn.
__device__ __forceinline__ Sample sample(const Staged& staged, int place, float x, float y, float stop,
                                         const float (&transmittance)[kRowsPerLane]) {
    const float4 p = staged.first[place], q = staged.second[place];
    const float2 r = staged.third[place];
    const float in_x = __fmaf_rn(__fmaf_rn(p.w, x, p.y), x, p.x), in_y = __fmaf_rn(q.y, x, p.z);
    Sample result{{}, {q.z, q.w, r.x, r.y}};
#pragma unroll
    for (int row = 0; row < kRowsPerLane; ++row) {
        const float at = row == 0 ? y : __fadd_rn(y, float(row));
        const float alpha =
            fminf(fast_power_of_two(__fmaf_rn(__fmaf_rn(q.x, at, in_y), at, in_x)), config::kLargestAlpha);
        result.alpha[row] = alpha >= config::kAlphaCutoff && transmittance[row] >= stop ? alpha : 0.0f;
    }
    return result;
}

// Where a lane's pixels are in their tile, from its middle.
__device__ float lane_x(unsigned lane) {
    return float(int(lane % kTile)) + (0.5f - kTile / 2);
}
__device__ float lane_y(unsigned lane) {
    return float(int(lane / kTile * kRowsPerLane)) + (0.5f - kTile / 2);
}

// ---------------------------------------------------------------- forward

__global__ void __launch_bounds__(kThreads) blend_kernel(const __grid_constant__ RasterizeStage<float> s, int blocks) {
    __shared__ Staged stages[kWarps];
    const unsigned warp = __shfl_sync(kAllLanes, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    const Place place = place_of(s, warp);
    if (!place.inside) return;
    Staged& staged = stages[warp];
    const bool overflow = s.block_slots[blocks] > s.capacity;
    const uint32_t begin = s.tile_begin[place.tile], end = overflow ? begin : s.tile_cursor[place.tile];
    const float x = lane_x(lane), y = lane_y(lane), middle_x = float(place.left + kTile / 2),
                middle_y = float(place.top + kTile / 2);
    float transmittance[kRowsPerLane] = {1, 1}, sums[kRowsPerLane][kFeatures] = {};
    bool done = false;
    for (uint32_t first = begin; first < end && !done; first += 32) {
        const uint32_t count = min(32u, end - first);
        if (lane < count)
            stage_splat(s.splats, uint32_t(s.entries[first + lane] >> 32), middle_x, middle_y, staged, lane);
        __syncwarp();
#pragma unroll 4
        for (uint32_t k = 0; k < count; ++k) {
            const Sample splat = sample(staged, int(k), x, y, s.stop, transmittance);
#pragma unroll
            for (int row = 0; row < kRowsPerLane; ++row) {
                const float weight = splat.alpha[row] * transmittance[row];
#pragma unroll
                for (int f = 0; f < kFeatures; ++f) sums[row][f] = __fmaf_rn(weight, splat.colour[f], sums[row][f]);
                transmittance[row] = __fsub_rn(transmittance[row], weight);
            }
        }
        done = __all_sync(kAllLanes, fmaxf(transmittance[0], transmittance[1]) < s.stop);
        __syncwarp();
    }
    // By way of shared memory, so that lanes write what lies side by side.
    auto* const tile = reinterpret_cast<float*>(&staged);
    static_assert(sizeof(Staged) >= kPixels * kSumFloats * sizeof(float));
#pragma unroll
    for (int row = 0; row < kRowsPerLane; ++row) {
        float* const out = tile + ((lane / kTile * kRowsPerLane + unsigned(row)) * kTile + lane % kTile) * kSumFloats;
        out[0] = sums[row][0];
        out[1] = sums[row][1];
        out[2] = sums[row][2];
        out[3] = 1.0f - transmittance[row];
        out[4] = sums[row][3];
    }
    __syncwarp();
    const int rows = s.height - place.top, floats = (s.width - place.left) * kSumFloats;
    float* const out =
        s.sums + ((size_t(place.frame) * s.height + place.top) * s.width + place.left) * size_t(kSumFloats);
#pragma unroll
    for (int i = 0; i < kPixels * kSumFloats / 32; ++i) {
        constexpr int kRow = kTile * kSumFloats;
        const int at = i * 32 + int(lane), row = at / kRow, within = at % kRow;
        if (row < rows && within < floats) out[size_t(row) * s.width * kSumFloats + within] = tile[at];
    }
}

// ---------------------------------------------------------------- backward

// Rows of 8 bfloat16: one per pixel, pixel `row * 32 + lane` is lane's own.
struct Products {
    uint4 position_high[kPixels], position_low[kPixels];  // q of eight splats
    uint4 weight_high[kPixels], weight_low[kPixels];      // T alpha
};

constexpr int kSumColumns = 11;  // six moments, four features, and one that spreads the rows over the banks

struct WarpShared {
    Staged staged;
    union {
        Products products;
        float gradient[kPixels][kFeatures];
    };
    float sums[32][kSumColumns];
};

// Two floats as bfloat16 in a word, and what rounding left of them.
__device__ uint32_t split(float& low, float& high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    low -= __uint_as_float(packed << 16);
    high -= __uint_as_float(packed & 0xffff0000u);
    return packed;
}

__device__ void store_split(uint4* high, uint4* low, unsigned at, float (&value)[kStep]) {
    const uint4 rounded{split(value[0], value[1]), split(value[2], value[3]), split(value[4], value[5]),
                        split(value[6], value[7])};
    high[at] = rounded;
    low[at] = {split(value[0], value[1]), split(value[2], value[3]), split(value[4], value[5]),
               split(value[6], value[7])};
}

// Left factors of the products, as fragments: row lane / 4 of a 8 x 64 matrix, 4 x 16 pixels.
struct Fragments {
    uint32_t word[4][2];
};

// Rows 1, X, Y, X^2, XY, Y^2 of the pixels' places, and two of zeros.
__device__ Fragments moment_fragments(unsigned lane) {
    Fragments result;
    const unsigned moment = lane / 4;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float value[2];
#pragma unroll
            for (unsigned i = 0; i < 2; ++i) {
                const unsigned pixel = unsigned(step) * 16 + unsigned(half) * 8 + lane % 4 * 2 + i;
                const float x = lane_x(pixel % 32), y = lane_y(pixel % 32) + float(pixel / 32);
                value[i] = moment == 0   ? 1.0f
                           : moment == 1 ? x
                           : moment == 2 ? y
                           : moment == 3 ? x * x
                           : moment == 4 ? x * y
                           : moment == 5 ? y * y
                                         : 0.0f;
            }
            result.word[step][half] = split(value[0], value[1]);
        }
    }
    return result;
}

// Rows 0 to 3: gradients of the features in each pixel, rounded; rows 4 to 7: what rounding left of them.
__device__ Fragments gradient_fragments(const float (*gradient)[kFeatures], unsigned lane) {
    Fragments result;
    const unsigned feature = lane / 4 % kFeatures;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const unsigned pixel = unsigned(step) * 16 + unsigned(half) * 8 + lane % 4 * 2;
            float low = gradient[pixel][feature], high = gradient[pixel + 1][feature];
            uint32_t word = split(low, high);
            if (lane >= 16) word = split(low, high);
            result.word[step][half] = word;
        }
    }
    return result;
}

// sums[8 x 8] += left [8 x 64] right [64 x 8]
__device__ void multiply(const Fragments& left, const uint4* right, unsigned lane, float (&sums)[4]) {
#pragma unroll
    for (int part = 0; part < 2; ++part) {
        uint32_t fragments[4];
        cuda::load_matrices_transposed(right + part * 32 + lane, fragments);
        cuda::multiply_8x16x8(sums, left.word[2 * part], fragments);
        cuda::multiply_8x16x8(sums, left.word[2 * part + 1], fragments + 2);
    }
}

__device__ void write_slot(float* slots, uint32_t slot, const float4& p, const float4& q, const float2& r) {
    auto* out = reinterpret_cast<float4*>(slots + size_t(slot) * kSplatFloats);
    out[0] = p;
    out[1] = q;
    out[2] = {r.x, r.y, 0, 0};
}

// Moments of the polynomial to the gradient of the splat that it came from, d = (X, Y) - (x, y):
// dL/dx = a sum q d_x + b sum q d_y, dL/da = -1/2 sum q d_x^2, dL/db = -sum q d_x d_y, dL/do = sum q / o.
__device__ void write_gradient(float* slots, uint32_t slot, const Relative& splat, const float* sums) {
    const float one = sums[0], dx = sums[1] - splat.x * one, dy = sums[2] - splat.y * one;
    const float xx = sums[3] - splat.x * (sums[1] + dx), xy = sums[4] - splat.x * sums[2] - splat.y * dx,
                yy = sums[5] - splat.y * (sums[2] + dy);
    write_slot(slots, slot, {splat.a * dx + splat.b * dy, splat.b * dx + splat.c * dy, -0.5f * xx, -xy},
               {-0.5f * yy, one / splat.opacity, sums[6], sums[7]}, {sums[8], sums[9]});
}

__global__ void __launch_bounds__(kThreads, 5)
    blend_backward_kernel(const __grid_constant__ RasterizeStage<float> s, int blocks) {
    __shared__ WarpShared warps[kWarps];
    const unsigned warp = __shfl_sync(kAllLanes, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    const Place place = place_of(s, warp);
    if (!place.inside || s.block_slots[blocks] > s.capacity) return;
    const uint32_t begin = s.tile_begin[place.tile], end = s.tile_cursor[place.tile];
    if (begin == end) return;
    WarpShared& shared = warps[warp];
    const float x = lane_x(lane), y = lane_y(lane), middle_x = float(place.left + kTile / 2),
                middle_y = float(place.top + kTile / 2);
    const int column = place.left + int(lane % kTile), first_row = place.top + int(lane / kTile) * kRowsPerLane;

    // remaining: R - g_A T_end, so far of all splats.
    float transmittance[kRowsPerLane] = {1, 1}, remaining[kRowsPerLane], gradient[kRowsPerLane][kFeatures];
#pragma unroll
    for (int row = 0; row < kRowsPerLane; ++row) {
        float sums[kSumFloats] = {}, of_sums[kSumFloats] = {};
        if (column < s.width && first_row + row < s.height) {
            const size_t at = ((size_t(place.frame) * s.height + first_row + row) * s.width + column) * kSumFloats;
#pragma unroll
            for (int i = 0; i < kSumFloats; ++i) {
                sums[i] = s.sums[at + i];
                of_sums[i] = s.sums_gradient[at + i];
            }
        } else {
            transmittance[row] = -1;  // below any stop: a pixel outside the picture takes nothing
        }
#pragma unroll
        for (int f = 0; f < 3; ++f) gradient[row][f] = of_sums[f];
        gradient[row][3] = of_sums[4];
        remaining[row] = of_sums[0] * sums[0] + of_sums[1] * sums[1] + of_sums[2] * sums[2] + of_sums[4] * sums[4] -
                         of_sums[3] * (1.0f - sums[3]);
#pragma unroll
        for (int f = 0; f < kFeatures; ++f) shared.gradient[row * 32 + lane][f] = gradient[row][f];
    }
    __syncwarp();
    const Fragments moments = moment_fragments(lane), features = gradient_fragments(shared.gradient, lane);
    __syncwarp();

    uint32_t first = begin;
    for (bool done = false; first < end && !done; first += 32) {
        const uint32_t count = min(32u, end - first);
        if (lane < count)
            stage_splat(s.splats, uint32_t(s.entries[first + lane] >> 32), middle_x, middle_y, shared.staged, lane);
        else
            stage_nothing(shared.staged, lane);
        __syncwarp();
#pragma unroll 1
        for (uint32_t step = 0; step < count; step += kStep) {
            float position[kRowsPerLane][kStep], weight[kRowsPerLane][kStep];
#pragma unroll
            for (int k = 0; k < kStep; ++k) {
                const Sample drawn = sample(shared.staged, int(step) + k, x, y, s.stop, transmittance);
#pragma unroll
                for (int row = 0; row < kRowsPerLane; ++row) {
                    const float alpha = drawn.alpha[row], w = alpha * transmittance[row];
                    float along = gradient[row][0] * drawn.colour[0];
#pragma unroll
                    for (int f = 1; f < kFeatures; ++f) along = __fmaf_rn(gradient[row][f], drawn.colour[f], along);
                    remaining[row] = __fmaf_rn(-w, along, remaining[row]);
                    // alpha dL/dalpha; where alpha was cut to the largest, it does not depend on the splat's place
                    const float q = __fmaf_rn(w, along, -alpha * remaining[row] * fast_reciprocal(1.0f - alpha));
                    position[row][k] = alpha < config::kLargestAlpha ? q : 0.0f;
                    weight[row][k] = w;
                    transmittance[row] = __fsub_rn(transmittance[row], w);
                }
            }
#pragma unroll
            for (int row = 0; row < kRowsPerLane; ++row) {
                store_split(shared.products.position_high, shared.products.position_low, unsigned(row) * 32 + lane,
                            position[row]);
                store_split(shared.products.weight_high, shared.products.weight_low, unsigned(row) * 32 + lane,
                            weight[row]);
            }
            __syncwarp();
            float of_position[4] = {}, of_features[4] = {};
            multiply(moments, shared.products.position_high, lane, of_position);
            multiply(moments, shared.products.position_low, lane, of_position);
            multiply(features, shared.products.weight_high, lane, of_features);
            multiply(features, shared.products.weight_low, lane, of_features);
            // A lane has columns lane % 4 * 2 and the next of row lane / 4.
            const unsigned row = lane / 4;
#pragma unroll
            for (unsigned i = 0; i < 2; ++i) {
                const float rest = __shfl_down_sync(kAllLanes, of_features[i], 16);
                float* sums = shared.sums[step + lane % 4 * 2 + i];
                if (row < kMoments) sums[row] = of_position[i];
                if (row < kFeatures) sums[kMoments + row] = of_features[i] + rest;
            }
            __syncwarp();
        }
        if (lane < count) {  // reads again what it would cost registers to keep
            const uint64_t entry = s.entries[first + lane];
            write_gradient(s.slots, uint32_t(entry), load_relative(s.splats, uint32_t(entry >> 32), middle_x, middle_y),
                           shared.sums[lane]);
        }
        done = __all_sync(kAllLanes, fmaxf(transmittance[0], transmittance[1]) < s.stop);
        __syncwarp();
    }
    for (uint32_t i = first + lane; i < end; i += 32)  // behind what is opaque
        write_slot(s.slots, uint32_t(s.entries[i]), {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0});
}

// A splat's gradient: the sum over its slots. Groups of eight lanes take a splat each, two slots at a time, three lanes
// of four a slot's floats; a splat of more than kFewSlots is taken by the whole warp, eight slots at a time. Partial
// sums are added up in one order that depends on nothing but the number of slots.
constexpr uint32_t kFewSlots = 32;

// Slots begin, begin + kApart and so on, kAtOnce of them under way together.
template <int kAtOnce, uint32_t kApart>
__device__ float4 sum_slots(const float4* slots, uint32_t begin, uint32_t end) {
    float4 sum{0, 0, 0, 0}, value[kAtOnce];
    const auto add = [&](const float4& v) { sum = {sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w}; };
    uint32_t first = begin;
    for (; first + (kAtOnce - 1) * kApart < end; first += kAtOnce * kApart) {
        const float4* const from = slots + size_t(first) * 3;
#pragma unroll
        for (uint32_t i = 0; i < kAtOnce; ++i) value[i] = __ldg(from + i * kApart * 3);
#pragma unroll
        for (uint32_t i = 0; i < kAtOnce; ++i) add(value[i]);
    }
    if (first >= end) return sum;
    // What lies behind the end is read as the last slot: reads under a condition would wait for one another.
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) value[i] = __ldg(slots + size_t(min(first + i * kApart, end - 1)) * 3);
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i)
        if (first + i * kApart < end) add(value[i]);
    return sum;
}

__device__ float4 add_across(const float4& sum, int apart) {
    return {sum.x + __shfl_xor_sync(kAllLanes, sum.x, apart), sum.y + __shfl_xor_sync(kAllLanes, sum.y, apart),
            sum.z + __shfl_xor_sync(kAllLanes, sum.z, apart), sum.w + __shfl_xor_sync(kAllLanes, sum.w, apart)};
}

__global__ void __launch_bounds__(kThreads) gather_kernel(const __grid_constant__ RasterizeStage<float> s, int blocks) {
    const int64_t all = int64_t(s.frames) * s.splats_per_frame,
                  index = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 8;
    const unsigned lane = threadIdx.x % 32, part = lane % 4;
    uint32_t begin = 0, end = 0;
    if (index < all && s.block_slots[blocks] <= s.capacity) {
        begin = s.splat_slots[index];
        end = s.splat_slots[index + 1];
    }
    const auto* slots = reinterpret_cast<const float4*>(s.slots) + part;
    const bool many = end - begin > kFewSlots;
    float4 sum{0, 0, 0, 0};
    if (!many && part < 3) sum = sum_slots<4, 2>(slots, begin + lane / 4 % 2, end);
    sum = add_across(sum, 4);
    for (unsigned left = __ballot_sync(kAllLanes, many && lane % 8 == 0); left; left &= left - 1) {
        const int owner = __ffs(int(left)) - 1;
        const uint32_t its_begin = __shfl_sync(kAllLanes, begin, owner), its_end = __shfl_sync(kAllLanes, end, owner);
        float4 its_sum{0, 0, 0, 0};
        if (part < 3) its_sum = sum_slots<8, 8>(slots, its_begin + lane / 4, its_end);
#pragma unroll
        for (int apart = 4; apart < 32; apart *= 2) its_sum = add_across(its_sum, apart);
        if (int(lane / 8 * 8) == owner) sum = its_sum;
    }
    if (index < all && lane % 8 < 3) reinterpret_cast<float4*>(s.splats_gradient)[index * 3 + part] = sum;
}

dim3 tile_grid(const RasterizeStage<float>& s) {
    const int across = (tiles_across(s.width) + kBlockColumns - 1) / kBlockColumns,
              down = (tiles_across(s.height) + kBlockRows - 1) / kBlockRows;
    return {unsigned(across * down), unsigned(s.frames)};
}

}  // namespace

void launch_blend(const RasterizeStage<float>& s, cudaStream_t stream) {
    blend_kernel<<<tile_grid(s), kThreads, 0, stream>>>(s, bin_blocks(int64_t(s.frames) * s.splats_per_frame));
}

void launch_rasterize_backward(const RasterizeStage<float>& s, cudaStream_t stream) {
    const int64_t splats = int64_t(s.frames) * s.splats_per_frame;
    blend_backward_kernel<<<tile_grid(s), kThreads, 0, stream>>>(s, bin_blocks(splats));
    gather_kernel<<<unsigned((splats * 8 + kThreads - 1) / kThreads), kThreads, 0, stream>>>(s, bin_blocks(splats));
}

}  // namespace being::training
