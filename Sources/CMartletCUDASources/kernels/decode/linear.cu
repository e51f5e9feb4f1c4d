// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// linear_decode: y = epilogue(x W^T) for 1 to 8 rows of x, weights in the layout `mma16x16`.
//
// Bytes: the packed weight once; FLOP 2 T K N; floor: weight bytes / copy bandwidth (C).
// Measured on an H100 80GB, linears of a baichuan2-7b layer in order: 1 row bf16 97.5, int8 94.0, int4 g128
// 81.9 % of C; 8 rows 93.1, 79.4, 60.8 %. More than 8 rows (4 where linear_batch has boxes), or rows that do not fit shared memory (8 of
// 14,336), want another kernel.
// One block per multiprocessor owns whole strips. Its chunks are one sequence, cut evenly over the warps;
// each warp keeps DEPTH chunks in registers (64 KB in flight per multiprocessor) and the first of them are
// on their way before the kernel waits for its producers. x lies in shared memory, permuted so that one
// conflict-free 16-byte load feeds two matrix instructions. Warps' parts are added in a fixed order, so a
// row's result does not depend on the rows beside it.
// Everything is constant: shapes, grid, ranges. Numerics: f32 sums; codes are multiplied as exact f16
// numbers, x is rounded to f16 with them (a 16th of it in every other 8 k beside 4-bit codes): a row that
// exceeds f16 has no finite results, those beside it are as ever.
//
//   WEIGHT GROUP ZERO        format of the weight (mma16x16.cuh); GROUP 0: per channel
//   ACTIVATION RESULT        types of x, gamma, bias, residual; of y
//   INPUTS OUTPUTS           K, and rows of the weight (gate and up together count twice)
//   TOKENS GRID WARPS        1, 2, 4 or 8; blocks, each with a strip at least; warps
//   DEPTH                    chunks that a warp keeps in registers
//   NORM                     0; 1: rms of x with gamma, the row's factor applied to the sums
//   GATED                    0; 1: y = silu(gate) up, rows `paired8`; 2: gelu(gate) up, tanh form
//   BIAS RESIDUAL            0 or 1
//   INTERLEAVE               of the layout, fastest where it is GRID; 0: strips as they come
#include "mma16x16.cuh"

struct DecodeLinearArguments {
    Rows x, y, residual;
    const u8* weight;
    const float* scales;  // [strips x 16], per-channel schemes
    const float* zeros;
    const void* gamma;    // [K]
    const void* bias;     // [N]
    float epsilon;
#ifdef TRACE
    u64* trace;
#endif
};

namespace {
using namespace layout;
constexpr int threads = WARPS * 32;
constexpr int strips = (OUTPUTS + 15) / 16;
constexpr int few = strips / GRID, longer = strips % GRID;  // the first `longer` blocks own one strip more
constexpr int most = few + (longer > 0);
constexpr int pairs = (INPUTS + 31) / 32;
constexpr int pair_bytes = TOKENS * 64 + 16;  // 16 more spread the writes over the banks
constexpr int slots_of(int strip_count) {     // strips that a warp touches, as a power of two
    int touched = ((strip_count * strip_chunks + WARPS - 1) / WARPS + strip_chunks - 2) / strip_chunks + 1;
    int slots = 1;
    while (slots < touched) slots *= 2;
    return slots;
}
constexpr int slots = slots_of(most);
constexpr int sum_count = quantized ? INPUTS / sum_k : 0;

// Shared memory, in bytes from its start.
constexpr int parts_at = pairs * pair_bytes;
constexpr int sums_at = parts_at + WARPS * slots * 16 * TOKENS * 4;
constexpr int squares_at = sums_at + sum_count * TOKENS * (has_zeros ? 8 : 4);
constexpr int shared_bytes = squares_at + TOKENS * WARPS * 4;
extern __shared__ __align__(128) u8 shared[];
static_assert(few > 0, "each block has a strip");

/// The block's i-th chunk.
__device__ __forceinline__ const u8* chunk_address(const DecodeLinearArguments& a, int strip, int i) {
#if INTERLEAVE == GRID
    constexpr int even = few * strip_chunks;
    i64 chunk = i < even ? (i64)i * GRID + blockIdx.x
                         : (i64)even * GRID + (i64)(i - even) * longer + blockIdx.x;
#else
    i64 chunk = chunk_index(strip + i / strip_chunks, i % strip_chunks);
#endif
    return a.weight + chunk * chunk_bytes;
}

/// Brings x into shared memory: times gamma, in the type of the multiplication, permuted; and its sums.
struct Stage {
    static constexpr int columns = pairs * 4;                        // pieces of 8 k in a row of x
    static constexpr int turns = (columns + threads - 1) / threads;  // pieces of a thread in a row
    static constexpr bool gamma_early = NORM && turns <= 2;  // both divide a batch
    Word gammas[gamma_early ? turns : 1];

    __device__ __forceinline__ void before_wait(const DecodeLinearArguments& a) {
        if (!gamma_early) return;
#pragma unroll
        for (int i = 0; i < turns; ++i) gammas[i] = gamma(a, threadIdx.x + i * threads);
    }
    static __device__ __forceinline__ Word gamma(const DecodeLinearArguments& a, int piece) {
        if (piece * 8 >= INPUTS) return Word{0, 0, 0, 0};
        return load_once((const u16*)a.gamma + piece * 8);
    }
    static __device__ __forceinline__ Word piece_of(const DecodeLinearArguments& a, int token, int piece) {
        if (piece * 8 >= INPUTS) return Word{0, 0, 0, 0};
        return load_fresh((const u16*)a.x.base + token * a.x.stride + piece * 8);
    }
    static __device__ __forceinline__ void floats(const Word& v, float (&x)[8]) {
        const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x[2 * i] = low_half<ACTIVATION>(words[i]);
            x[2 * i + 1] = high_half<ACTIVATION>(words[i]);
        }
    }

    /// Writes a piece; returns its sum of squares before gamma.
    __device__ __forceinline__ float put(const DecodeLinearArguments& a, const Word& v, int token, int piece, int turn) {
        float x[8], squares = 0;
        floats(v, x);
        if (NORM) {
            float scale[8];
            floats(gamma_early ? gammas[turn] : gamma(a, piece), scale);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                squares = fmaf(x[i], x[i], squares);
                x[i] *= scale[i];
            }
        }
        u32 words[4];
        const bool is_high = piece & 1;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float low = x[2 * i], high = x[2 * i + 1];
            if (WEIGHT == MARTLET_U4 && is_high) low *= 0.0625f, high *= 0.0625f;
            words[i] = pack_pair<math>(low, high);
        }
        if (piece < columns) {
            u32 at = shared_address(shared) + (piece >> 2) * pair_bytes + token * 64 + (piece & 3) * 4;
#pragma unroll
            for (int i = 0; i < 4; ++i) shared_put(at + i * 16, words[i]);
        }
        if (quantized) {
            // Of the rounded numbers: the biases that they were multiplied with must cancel exactly.
            float sum = 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) sum += low_half<math>(words[i]) + high_half<math>(words[i]);
            float bias = 1024.f * sum;
            if (WEIGHT == MARTLET_U4 && is_high) sum *= 16.f;
            if (!has_zeros) bias += (WEIGHT == MARTLET_U4 ? 8.f : 128.f) * sum;
#pragma unroll
            for (int offset = 1; offset < sum_k / 8; offset *= 2) {
                bias += __shfl_xor_sync(~0u, bias, offset);
                if (has_zeros) sum += __shfl_xor_sync(~0u, sum, offset);
            }
            if (piece % (sum_k / 8) == 0 && piece < columns) {
                float* sums = (float*)(shared + sums_at);
                int at = piece / (sum_k / 8) * TOKENS + token;
                sums[at] = bias;
                if (has_zeros) sums[sum_count * TOKENS + at] = sum;
            }
        }
        return squares;
    }

    __device__ __forceinline__ void run(const DecodeLinearArguments& a) {
        float* parts = (float*)(shared + squares_at);
        constexpr int count = TOKENS * turns, batch = count < 4 ? count : 4;
        float squares = 0;
#pragma unroll 1
        for (int from = 0; from < count; from += batch) {
            Word v[batch];
#pragma unroll
            for (int i = 0; i < batch; ++i) {
                int j = from + i;
                if (j < count) v[i] = piece_of(a, j / turns, threadIdx.x + j % turns * threads);
            }
#pragma unroll
            for (int i = 0; i < batch; ++i) {
                int j = from + i;
                if (j >= count) continue;
                int token = j / turns;
                squares += put(a, v[i], token, threadIdx.x + j % turns * threads, i % turns);
                if (NORM && j % turns == turns - 1) {
                    squares = warp_sum(squares);
                    if (lane_index() == 0) parts[token * WARPS + warp_index()] = squares;
                    squares = 0;
                }
            }
        }
    }

    /// 1 / rms of a row, once all warps' sums of squares are there.
    static __device__ __forceinline__ float factor(const DecodeLinearArguments& a, int token) {
        const float* parts = (const float*)(shared + squares_at) + token * WARPS;
        float total = 0;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) total += parts[w];
        return rsqrtf(total * (1.f / INPUTS) + a.epsilon);
    }
};

/// The part of a block that owns COUNT strips from `strip` on.
template <int COUNT> struct Block {
    static constexpr int total = COUNT * strip_chunks;
    static constexpr int row_count = GATED ? 8 : 16;  // results of a strip
    static constexpr int elements = COUNT * row_count * TOKENS;
    static constexpr int workers = total < WARPS ? total : WARPS;  // warps with at least one chunk
    static constexpr int owners = workers / COUNT + 2;

    const DecodeLinearArguments& a;
    int strip;
    Chunk chunks[DEPTH];
    int from, to;

    __device__ __forceinline__ Block(const DecodeLinearArguments& a, int strip) : a(a), strip(strip) {}

    __device__ __forceinline__ void begin() {
        from = total * min(warp_index(), workers) / workers;
        to = total * min(warp_index() + 1, workers) / workers;
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) {
            if (from + d < to) chunks[d].load(chunk_address(a, strip, from + d), lane_index());
        }
    }

    template <int I> __device__ __forceinline__ void multiply_all(
        const Chunk& chunk, u32 x, int k, float (&c)[2][4], float (&sums)[4]) {
        constexpr int pair_count = (chunk_k + 31) / 32;
        if constexpr (I < pair_count) {
            Word b;
            if (chunk_k == 16) {
                u32 at = x + (k & 1) * 8;
                asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(b.x), "=r"(b.y) : "r"(at));
                b.z = b.w = 0;
            } else {
                b = shared_word(x + I * pair_bytes);
            }
            multiply_pair<I>(c, chunk.words, b);
            if constexpr (quantized && (I + 1) * 32 % sum_k == 0) {
                flush(chunk, (I + 1) * 32 / sum_k - 1, k, c, sums);
            }
            multiply_all<I + 1>(chunk, x, k, c, sums);
        }
    }
    /// Ends a group: subtracts the codes' bias, scales, adds.
    __device__ __forceinline__ void flush(
        const Chunk& chunk, int i, int k, float (&c)[2][4], float (&sums)[4]) {
        const float* bias = (const float*)(shared + sums_at) + (k * chunk_sums + i) * TOKENS;
        const int column = (lane_index() & 3) * 2 % TOKENS;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (TOKENS == 1 && (j & 1)) continue;
            int token = TOKENS == 1 ? 0 : column + (j & 1);
            float v = c[0][j] + c[1][j] - bias[token];
            if (grouped) {
                u32 scales = chunk.scales(i), zeros = has_zeros ? chunk.zeros(i) : 0;
                float scale = j < 2 ? low_half<MARTLET_F16>(scales) : high_half<MARTLET_F16>(scales);
                if (has_zeros) {
                    float zero = j < 2 ? low_half<MARTLET_F16>(zeros) : high_half<MARTLET_F16>(zeros);
                    float sum = bias[sum_count * TOKENS + token];
                    if (ZERO == MARTLET_ZERO_INTEGER) {
                        v = fmaf(-zero, sum, v);
                    } else {
                        sums[j] = fmaf(zero, sum, sums[j]);
                    }
                }
                sums[j] = fmaf(scale, v, sums[j]);
            } else {
                sums[j] += v;
            }
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) c[0][j] = c[1][j] = 0;
    }

    /// All chunks of this warp; its parts of strips' sums go to shared memory.
    __device__ __forceinline__ void stream() {
        const int lane = lane_index(), g = lane >> 2, t = lane & 3;
        int slot = from / strip_chunks, k = from % strip_chunks;
        u32 x = shared_address(shared) + g % TOKENS * 64 + t * 16;
        float* parts = (float*)(shared + parts_at) + warp_index() * slots * 16 * TOKENS;
        float sums[4] = {0, 0, 0, 0}, c[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
#pragma unroll 1
        for (int i = from; i < to; i += DEPTH) {
#pragma unroll
            for (int d = 0; d < DEPTH; ++d) {
                if (i + d >= to) break;
                multiply_all<0>(chunks[d], x + k * chunk_k / 32 * pair_bytes, k, c, sums);
                if (i + d + DEPTH < to) {
                    chunks[d].load(chunk_address(a, strip, i + d + DEPTH), lane);
                }
                ++k;
                if (k == strip_chunks || i + d + 1 == to) {
                    float* part = parts + (slot & (slots - 1)) * 16 * TOKENS;
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        if (TOKENS == 1 ? !(j & 1) && t == 0 : 2 * t < TOKENS) {
                            int token = TOKENS == 1 ? 0 : 2 * t + (j & 1);
                            int row = g + (j & 2) * 4;
                            part[row * TOKENS + token] = quantized ? sums[j] : c[0][j] + c[1][j];
                        }
                        sums[j] = c[0][j] = c[1][j] = 0;
                    }
                    k = 0;
                    ++slot;
                }
            }
        }
    }

    /// What a thread's result needs besides the sum; read before the kernel waits.
    struct Result {
        int slot, row, token, first, last;  // strip in the block, row in it; warps that hold parts
        float scale[2], zero[2], bias[2];

        __device__ __forceinline__ Result(const DecodeLinearArguments& a, int strip, int e) {
            row = e % row_count;
            token = e / row_count % TOKENS;
            slot = e / (row_count * TOKENS);
            first = ((slot * strip_chunks + 1) * workers - 1) / total;
            last = ((slot + 1) * strip_chunks * workers - 1) / total;
#pragma unroll
            for (int i = 0; i <= (GATED != 0); ++i) {
                int n = (strip + slot) * 16 + row + i * 8;
                scale[i] = quantized && !grouped ? __ldg(a.scales + n) : 1;
                zero[i] = quantized && !grouped && has_zeros ? __ldg(a.zeros + n) : 0;
                // Bias of gate and up: as two vectors, one behind the other.
                int at = GATED ? i * (OUTPUTS / 2) + (strip + slot) * 8 + row : n;
                bias[i] = BIAS && at < OUTPUTS ? load<ACTIVATION>(a.bias, at) : 0;
            }
        }
        __device__ __forceinline__ float sum(const DecodeLinearArguments& a, int i, float factor) const {
            const float* parts = (const float*)(shared + parts_at)
                + ((slot & (slots - 1)) * 16 + row + i * 8) * TOKENS + token;
            float v = 0;
#pragma unroll 6
            for (int o = 0; o < owners; ++o) {
                if (first + o <= last) v += parts[(first + o) * slots * 16 * TOKENS];
            }
            if (quantized && !grouped) {
                if (has_zeros) {
                    const float* sums = (const float*)(shared + sums_at) + sum_count * TOKENS + token;
                    float x = 0;
#pragma unroll 1
                    for (int s = 0; s < sum_count; ++s) x += sums[s * TOKENS];
                    v = ZERO == MARTLET_ZERO_INTEGER ? scale[i] * fmaf(-zero[i], x, v)
                                                     : fmaf(scale[i], v, zero[i] * x);
                } else {
                    v *= scale[i];
                }
            }
            return NORM ? fmaf(v, factor, bias[i]) : v + bias[i];
        }
    };

    __device__ __forceinline__ void run() {
        Stage stage;
        stage.before_wait(a);
        Result result(a, strip, threadIdx.x < elements ? threadIdx.x : 0);
        begin();
        MARTLET_TRACE(1);
        wait_for_producers();
        MARTLET_TRACE(2);
        const int n = (strip + result.slot) * row_count + result.row;
        constexpr int outputs = GATED ? OUTPUTS / 2 : OUTPUTS;
        float residual = 0;
        if (RESIDUAL && threadIdx.x < elements && n < outputs) {
            residual = Number<ACTIVATION>::get(
                load_fresh_16((const u16*)a.residual.base + result.token * a.residual.stride + n));
        }
        stage.run(a);
        __syncthreads();
        MARTLET_TRACE(3);
        stream();
        float factor = NORM ? Stage::factor(a, result.token) : 1;
        __syncthreads();
        MARTLET_TRACE(4);
#pragma unroll 1
        for (int e = threadIdx.x; e < elements; e += threads) {
            if (e >= threads) result = Result(a, strip, e);
            finish(result, residual, factor, e);
        }
        MARTLET_TRACE(5);
    }

    __device__ __forceinline__ void finish(const Result& result, float residual, float factor, int e) {
        constexpr int outputs = GATED ? OUTPUTS / 2 : OUTPUTS;
        int n = (strip + result.slot) * row_count + result.row;
        if (n >= outputs) return;
        float v = result.sum(a, 0, factor);
        if (GATED) {
            float up = result.sum(a, 1, factor);
            if (GATED == 1) {
                v = v / (1 + __expf(-v)) * up;
            } else {
                float inner = 0.7978845608028654f * (v + 0.044715f * v * v * v);
                v = v * (1 - 1 / (1 + __expf(2 * inner))) * up;
            }
        }
        if (RESIDUAL) {
            if (e >= threads) {
                residual = Number<ACTIVATION>::get(load_fresh_16(
                    (const u16*)a.residual.base + result.token * a.residual.stride + n));
            }
            v += residual;
        }
        a.y.put<RESULT>(result.token, n, v);
    }
};
}  // namespace

/// Bytes of shared memory, threads, blocks.
extern "C" __device__ const u32 linear_decode_launch[3] = {shared_bytes, threads, GRID};

MARTLET_KERNEL __launch_bounds__(threads, 1) linear_decode(const __grid_constant__ DecodeLinearArguments a) {
    release_dependents();
    MARTLET_TRACE(0);
    const int b = blockIdx.x;
    if (longer > 0 && b < longer) {
        Block<most> block(a, b * most);
        block.run();
    } else {
        Block<few> block(a, longer + few * b);
        block.run();
    }
}
