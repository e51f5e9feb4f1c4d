// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// The CPU micro-kernels: weight layout, activation format, and one table of functions per ISA.
///
/// Letters: T tokens, N outputs (rows of a weight), K inputs, G groups of a row, D head dim.
/// Every function works on ranges (panels, tokens, rows, heads), so that a caller shares the work
/// over threads statically; K is never split. No function allocates, locks, or keeps state.
/// Sizes and pointers are trusted: the caller checks data from outside before it calls.
///
/// Numerics: all float work is f32 with a documented order of operations that does not depend on
/// T, on the range, on the variant or on the ISA: the same inputs give the same bits everywhere.

#ifndef MARTLET_MICROKERNELS_H
#define MARTLET_MICROKERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// MARK: Instruction sets

/// An instruction set with a table of kernels.
typedef enum martlet_isa {
    /// Plain loops, the readable reference (x86-64: with FMA and F16C, which every table needs).
    MARTLET_ISA_SCALAR = 0,
    /// x86-64 AVX2 + FMA + F16C.
    MARTLET_ISA_AVX2 = 1,
    /// x86-64 AVX-512 F, BW, VL, DQ and VNNI.
    MARTLET_ISA_AVX512 = 2,
    /// AArch64 NEON, with dot product where the CPU has it.
    MARTLET_ISA_NEON = 3,
} martlet_isa;

// MARK: Weights, layout panel16

/// How the numbers of a packed weight are stored.
typedef enum martlet_weight_kind {
    MARTLET_WEIGHT_F32 = 0,
    MARTLET_WEIGHT_F16 = 1,
    MARTLET_WEIGHT_BF16 = 2,
    /// Unsigned 8-bit codes with scales.
    MARTLET_WEIGHT_U8 = 3,
    /// Unsigned 4-bit codes with scales.
    MARTLET_WEIGHT_U4 = 4,
} martlet_weight_kind;

/// A stored floating-point type (scales, minima, KV elements).
typedef enum martlet_float_type {
    MARTLET_FLOAT_F32 = 0,
    MARTLET_FLOAT_F16 = 1,
    MARTLET_FLOAT_BF16 = 2,
} martlet_float_type;

/// How a group represents zero (`QuantizationScheme.ZeroKind`).
typedef enum martlet_zero_kind {
    /// `(code - 2^(bits-1)) * s`
    MARTLET_ZERO_NONE = 0,
    /// `(code - z) * s`, z an integer code
    MARTLET_ZERO_INTEGER = 1,
    /// `code * s + z`, z in the scale's type
    MARTLET_ZERO_MINIMUM = 2,
} martlet_zero_kind;

/// A weight W[N, K] in layout panel16: panels of 16 rows, each contiguous, `panel_stride` apart.
///
/// Rows are padded to 16. Inside a panel:
/// - f32, f16, bf16: for each k 16 values, row r at position r.
/// - u8: for each k4 (four consecutive k) 64 bytes, row r at bytes 4r..4r+3.
/// - u4: for each k8 64 bytes, row r at bytes 4r..4r+3; byte j holds code k+j in its low nibble and
///   code k+4+j in its high nibble.
/// - groups of g (a multiple of 32): per group its codes, 16 scales, then with zeros 16 zeros in
///   the scale's type (integer zeros converted, exactly). K is padded to a multiple of g.
/// - per channel (`group_size` 0): all codes, K padded to a multiple of 64, then scales and zeros.
/// Padded codes are 2^(bits-1), padded scales and zeros are 0.
typedef struct martlet_weight {
    martlet_weight_kind kind;
    /// u8 and u4 only.
    martlet_zero_kind zero;
    /// u8 and u4 only: type of scales and zeros.
    martlet_float_type scale_type;
    /// N.
    size_t row_count;
    /// K.
    size_t input_count;
    /// Inputs that share a scale, a multiple of 32; 0: the whole row.
    size_t group_size;
    /// Bytes from one panel to the next, a multiple of 64.
    size_t panel_stride;
    /// `panel_count * panel_stride` bytes, best aligned to 64 (any alignment works).
    const void *data;
} martlet_weight;

/// Describes a packed weight and computes `panel_stride`; `data` is NULL until the caller sets it.
///
/// `group_size`, `zero` and `scale_type` are ignored for plain kinds. Returns 0 where the group
/// size is no multiple of 32, a size is 0 or beyond 2^31, an enumeration is out of range, or the
/// byte count overflows; else 1.
int martlet_weight_describe(
    martlet_weight *weight, martlet_weight_kind kind, size_t row_count, size_t input_count,
    size_t group_size, martlet_zero_kind zero, martlet_float_type scale_type);

/// Panels of 16 rows: ceil(N / 16).
size_t martlet_weight_panel_count(const martlet_weight *weight);
/// Groups of a row: ceil(K / g), or 1.
size_t martlet_weight_group_count(const martlet_weight *weight);
/// Bytes of all panels.
size_t martlet_weight_byte_count(const martlet_weight *weight);

/// Canonical parts of a quantized weight, as `QuantizedTensor` holds them.
typedef struct martlet_canonical {
    /// u8: `[N, K]`; u4: `[N, ceil(K/2)]`, even k in the low nibble.
    uint8_t *codes;
    /// `[N, G]` in the scale's type, rows `scale_row_stride` elements apart
    /// (G, or 0 where one row of scales serves all: one scale per tensor).
    void *scales;
    /// `[N, G]`: u8 for integer zeros, the scale's type for minima; NULL without zeros. Rows as
    /// scales.
    void *zeros;
    size_t scale_row_stride;
} martlet_canonical;

/// Packs panels `panel_begin ..< panel_end`; `destination` is the address of panel 0.
void martlet_pack_quantized(
    const martlet_weight *weight, const martlet_canonical *source, void *destination,
    size_t panel_begin, size_t panel_end);
/// Writes the rows of a range of panels back in canonical form: `unpack(pack(w)) == w` bit for bit.
/// The unused high nibble of an odd K is written as 0.
void martlet_unpack_quantized(
    const martlet_weight *weight, const martlet_canonical *destination, size_t panel_begin,
    size_t panel_end);
/// Packs a plain weight: `source` is `[N, K]` in the weight's type, `row_stride` elements a row.
void martlet_pack_plain(
    const martlet_weight *weight, const void *source, size_t row_stride, void *destination,
    size_t panel_begin, size_t panel_end);
/// The inverse of `martlet_pack_plain`.
void martlet_unpack_plain(
    const martlet_weight *weight, void *destination, size_t row_stride, size_t panel_begin,
    size_t panel_end);

// MARK: Activations, format int8g64

/// Numbers of one group of 64 codes.
typedef struct martlet_int8g64_group {
    /// Value of one unit: amax / 127 (0 for an all-zero group, NaN if an input is not finite).
    float scale;
    /// Minus the sum of the 64 codes.
    int32_t negated_sum;
    /// Minus the sums of codes 0..31 and 32..63.
    int32_t negated_half_sums[2];
    /// f32(sum of 64 codes) * scale.
    float weighted_sum;
    /// f32(sum of 32 codes) * scale.
    float weighted_half_sums[2];
    /// 0.
    uint32_t reserved;
} martlet_int8g64_group;

// A row of K inputs in int8g64 is, with Kp = K rounded up to 64:
//     int8_t codes[Kp]; martlet_int8g64_group groups[Kp / 64]; padding to the row's bytes
// For a group with amax = max |x| (padding counts as 0):
//     amax not finite:   codes 0, scale NaN
//     amax < 2^-100:     codes 0, scale 0
//     else               scale = amax / 127; code = round-to-nearest-even(x * (127 / amax))

/// Bytes of an int8g64 row of K inputs: an odd multiple of 64, so that rows spread over cache sets.
size_t martlet_int8g64_row_bytes(size_t input_count);

// MARK: Arguments

/// y[t, n] = sum over k of W[n, k] * x[t, k] (+ bias[n]).
///
/// int8g64: per group of the weight, per block b of 64 k (32 where g is no multiple of 64), up:
///     dot = integer sum of (code_w - z) * code_x          (z = 2^(bits-1), the zero, or 0)
///     inner = fma(f32(dot), scale_x[b], inner)            (the first block: the product alone)
/// then acc = fma(inner, scale_w, acc), and with minima
///     m = sum over the blocks, ascending, of weighted_sum; acc = fma(m, z, acc).
///
/// exact, u8 and u4: per group, k ascending: inner = fma(f32(code_w - z), x[k], inner), then
///     acc = fma(inner, scale_w, acc), and with minima acc = fma(sum, z, acc), where sum adds the
///     sums of 32 inputs (`row_sums32`) in ascending order, from the first.
/// exact, plain: acc = fma(f32(w), x[k], acc), k ascending.
/// Last: y = acc + bias.
typedef struct martlet_linear_arguments {
    martlet_weight weight;
    /// Row 0 of the activations: int8g64 rows, or f32 rows.
    const void *x;
    /// Bytes from one row to the next.
    size_t x_stride;
    /// exact with minima only: `row_sums32` of each row; NULL: the kernel sums (slower, same bits).
    const float *x_sums;
    /// Floats from one row of sums to the next.
    size_t x_sums_stride;
    /// `[N]` or NULL.
    const float *bias;
    /// Row 0 of the output.
    float *y;
    /// Floats from one output row to the next.
    size_t y_stride;
} martlet_linear_arguments;

/// Computes panels `panel_begin ..< panel_end` of tokens `token_begin ..< token_end`.
typedef void (*martlet_linear_function)(
    const martlet_linear_arguments *arguments, size_t panel_begin, size_t panel_end,
    size_t token_begin, size_t token_end);

/// Where a row operation puts its result: f32 rows, int8g64 rows, or both (either may be NULL).
typedef struct martlet_row_output {
    float *f32;
    /// Floats between rows.
    size_t f32_stride;
    uint8_t *int8g64;
    /// Bytes between rows.
    size_t int8g64_stride;
} martlet_row_output;

/// A normalization of rows of `count` numbers, after an optional addition.
///
/// v = x + residual (or x); sums run in 64 lanes (k mod 64), folded 64 -> 16 as (0+1)+(2+3), then
/// halves down to 1.
/// rms: y = (v * (1 / sqrt(sum(v^2) / count + epsilon))) * weight
/// layer: mean = sum(v) / count, d = v - mean,
///     y = (d * (1 / sqrt(sum(d^2) / count + epsilon))) * weight
/// then + bias where given; a missing weight is 1. Squares are summed by fma.
typedef struct martlet_norm_arguments {
    const float *x;
    size_t x_stride;
    /// NULL: none.
    const float *residual;
    size_t residual_stride;
    /// Receives v; may be x's or residual's own memory; NULL: not kept.
    float *sum;
    size_t sum_stride;
    /// `[count]` or NULL.
    const float *weight;
    /// `[count]` or NULL.
    const float *bias;
    float epsilon;
    size_t count;
    martlet_row_output output;
} martlet_norm_arguments;

/// An activation function.
typedef enum martlet_activation {
    MARTLET_ACTIVATION_IDENTITY = 0,
    /// x / (1 + exp(-x))
    MARTLET_ACTIVATION_SILU = 1,
    /// 0.5 x (1 + erf(x / sqrt 2))
    MARTLET_ACTIVATION_GELU_ERF = 2,
    /// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
    MARTLET_ACTIVATION_GELU_TANH = 3,
    MARTLET_ACTIVATION_RELU = 4,
} martlet_activation;

/// y = act(gate) * up, or act(gate) where `up` is NULL, on rows of `count` numbers.
typedef struct martlet_gated_arguments {
    const float *gate;
    size_t gate_stride;
    const float *up;
    size_t up_stride;
    size_t count;
    martlet_activation activation;
    martlet_row_output output;
} martlet_gated_arguments;

/// How rotary pairs lie in a head.
typedef enum martlet_rotary_pairs {
    /// (i, i + rotaryDim / 2), as Hugging Face's LLaMA.
    MARTLET_ROTARY_HALVES = 0,
    /// (2i, 2i + 1), as GPT-J and GGUF's LLaMA.
    MARTLET_ROTARY_INTERLEAVED = 1,
} martlet_rotary_pairs;

/// Rotates the first `rotary_dim` numbers of each head; copies the rest where x and y differ.
///
/// (a, b) -> (a c - b s, b c + a s): two products, one addition each, no fma.
typedef struct martlet_rotary_arguments {
    const float *x;
    size_t x_token_stride;
    size_t x_head_stride;
    /// May be x.
    float *y;
    size_t y_token_stride;
    size_t y_head_stride;
    size_t head_count;
    size_t head_dim;
    /// Even, at most `head_dim`.
    size_t rotary_dim;
    martlet_rotary_pairs pairs;
    /// Rows of rotary_dim / 2, by position (`martlet_rotary_table`).
    const float *cosines;
    const float *sines;
    /// Row of the tables for token t; NULL: row t.
    const int32_t *positions;
} martlet_rotary_arguments;

/// Positions in a KV block.
#define MARTLET_KV_BLOCK 16

/// One layer of a paged KV cache: in a block and kv head, K is `[D][16]`, V is `[16][D]`.
typedef struct martlet_kv_layer {
    martlet_float_type element;
    size_t head_dim;
    /// K of block 0, kv head 0.
    void *keys;
    /// V of block 0, kv head 0.
    void *values;
    /// Bytes between blocks.
    size_t block_stride;
    /// Bytes between kv heads of a block.
    size_t head_stride;
} martlet_kv_layer;

/// Stores tokens' keys and values, rounded to nearest even, in their slots.
typedef struct martlet_kv_write_arguments {
    martlet_kv_layer kv;
    const float *keys;
    const float *values;
    /// Floats between tokens and between heads, of keys and of values.
    size_t token_stride;
    size_t head_stride;
    /// Slot of token t: block * 16 + offset; negative: the token is skipped.
    const int32_t *slots;
} martlet_kv_write_arguments;

/// Attention of tokens of one request over its paged KV.
///
/// Token t sees positions `max(0, end - window) ..< end`, end = visible_end[t]; position p lies in
/// block `block_table[p / 16]`, offset p % 16. Masked positions are never used, whatever they hold.
///
/// Order, for each (token, head): chunks of 512 positions ascending (absolute). In a chunk
///     s = sum over d ascending, by fma, of q[d] * k[d]; s = s * scale;
///     soft cap: s = cap * tanh(s / cap); ALiBi: s = fma(slope, f32(p - (end - 1)), s)
/// then m' = max(m, all s); c = exp(m - m'); p = exp(s - m'); l[lane] = l[lane] * c, then += p,
/// lane = position % 16; o[d] = o[d] * c, then o[d] = fma(p, v[d], o[d]), positions ascending. At
/// the end o[d] = o[d] * (1 / sum of l), halves folded 16 -> 1. A token that sees nothing gives 0.
typedef struct martlet_attention_arguments {
    martlet_kv_layer kv;
    const float *queries;
    size_t query_token_stride;
    size_t query_head_stride;
    float *output;
    size_t output_token_stride;
    size_t output_head_stride;
    /// Query heads that share a kv head: heads `h * heads_per_kv ..< (h + 1) * heads_per_kv`.
    size_t heads_per_kv;
    /// Block ids of the request.
    const int32_t *block_table;
    /// Per token: visible positions end here (position + 1 for causal attention).
    const int32_t *visible_end;
    /// Sliding window, in positions, the token's own included; 0: none.
    int32_t window;
    float scale;
    /// 0: none.
    float soft_cap;
    /// Per query head; NULL: none.
    const float *alibi_slopes;
} martlet_attention_arguments;

// MARK: The table

/// The kernels of one instruction set. No entry is NULL.
typedef struct martlet_kernels {
    martlet_isa isa;
    /// "scalar", "avx2", "avx512", "neon".
    const char *name;

    /// Linears. `gemv` streams weights once for up to 4 tokens, `panel` tiles tokens
    /// (best from T = 5); both take any T and give the same bits.
    martlet_linear_function linear_u8_int8g64_gemv;
    martlet_linear_function linear_u8_int8g64_panel;
    martlet_linear_function linear_u4_int8g64_gemv;
    martlet_linear_function linear_u4_int8g64_panel;
    martlet_linear_function linear_u8_exact_gemv;
    martlet_linear_function linear_u8_exact_panel;
    martlet_linear_function linear_u4_exact_gemv;
    martlet_linear_function linear_u4_exact_panel;
    martlet_linear_function linear_f32_exact_gemv;
    martlet_linear_function linear_f32_exact_panel;
    martlet_linear_function linear_f16_exact_gemv;
    martlet_linear_function linear_f16_exact_panel;
    martlet_linear_function linear_bf16_exact_gemv;
    martlet_linear_function linear_bf16_exact_panel;

    /// Sums of 32 inputs of rows of K f32: sums[t, ceil(K/32)], for exact linears with minima.
    /// Lanes j = k mod 16 as x[j] + x[16 + j], then halves folded 16 -> 1.
    void (*row_sums32)(
        const float *x, size_t x_stride, size_t input_count, float *sums, size_t sums_stride,
        size_t row_begin, size_t row_end);
    /// f32 rows to int8g64 rows (strides: floats, bytes).
    void (*quantize_int8g64)(
        const float *x, size_t x_stride, size_t input_count, uint8_t *y, size_t y_stride,
        size_t row_begin, size_t row_end);
    /// int8g64 rows to f32 rows: code * scale.
    void (*dequantize_int8g64)(
        const uint8_t *x, size_t x_stride, size_t input_count, float *y, size_t y_stride,
        size_t row_begin, size_t row_end);

    void (*rms_norm)(const martlet_norm_arguments *arguments, size_t row_begin, size_t row_end);
    void (*layer_norm)(const martlet_norm_arguments *arguments, size_t row_begin, size_t row_end);
    void (*gated_activation)(
        const martlet_gated_arguments *arguments, size_t row_begin, size_t row_end);

    /// y[i] = a[i] + b[i]; y may be a or b.
    void (*add)(const float *a, const float *b, float *y, size_t count);
    /// y[i] = a[i] * b[i]; y may be a or b.
    void (*multiply)(const float *a, const float *b, float *y, size_t count);
    /// y[i] = a[i] * factor; y may be a.
    void (*scale)(const float *a, float factor, float *y, size_t count);

    /// y[i, :] = row ids[i] of a packed weight as f32, i in `begin ..< end` (minima: product, then
    /// sum, rounded twice).
    /// An id outside `0 ..< N` gives a row of NaN.
    void (*gather_rows)(
        const martlet_weight *weight, const int32_t *ids, float *y, size_t y_stride, size_t begin,
        size_t end);

    void (*rotary)(const martlet_rotary_arguments *arguments, size_t token_begin, size_t token_end);
    void (*kv_write)(
        const martlet_kv_write_arguments *arguments, size_t kv_head_begin, size_t kv_head_end,
        size_t token_begin, size_t token_end);
    void (*attention)(
        const martlet_attention_arguments *arguments, size_t kv_head_begin, size_t kv_head_end,
        size_t token_begin, size_t token_end);

    /// Bulk conversions, to nearest even; NaN stays NaN.
    void (*f32_to_f16)(const float *x, uint16_t *y, size_t count);
    void (*f16_to_f32)(const uint16_t *x, float *y, size_t count);
    void (*f32_to_bf16)(const float *x, uint16_t *y, size_t count);
    void (*bf16_to_f32)(const uint16_t *x, float *y, size_t count);

    /// y = softmax(x) of one row; y may be x. Sums in 64 lanes as the norms.
    void (*softmax)(const float *x, float *y, size_t count);
    /// Index of the first largest number; NaN counts as less than all (0 where there is none).
    size_t (*argmax)(const float *x, size_t count);
    /// log(sum(exp(x))) of one row.
    double (*log_sum_exp)(const float *x, size_t count);
    /// 1 if no number is NaN or infinite.
    int (*all_finite)(const float *x, size_t count);

    /// CRC32C of bytes, as `CRC32C.checksum`: go on by passing the last result as `seed` (0 first).
    uint32_t (*crc32c)(uint32_t seed, const void *bytes, size_t count);

    /// Reads a buffer with the widest loads and returns a sum: for measuring read bandwidth.
    uint64_t (*probe_read)(const void *bytes, size_t count);
    /// The densest int8 dot loop of the ISA; returns operations done (2 per multiply-add).
    double (*probe_int8)(size_t iterations);
    /// The densest f32 FMA loop of the ISA; returns operations done (2 per multiply-add).
    double (*probe_f32)(size_t iterations);
} martlet_kernels;

/// The best table that this CPU can run.
martlet_isa martlet_best_isa(void);
/// The table of an ISA, or NULL where this CPU cannot run it or it was not compiled.
const martlet_kernels *martlet_kernels_for(martlet_isa isa);

/// Fills cos and sin rows of `count` = rotaryDim / 2, positions `position_begin ..< position_end`
/// (row p at `cosines + p * count`), of angle p * inverse_frequencies[i], times `scale`.
///
/// Computed in f64 and rounded once; positions up to 2^31.
void martlet_rotary_table(
    const double *inverse_frequencies, size_t count, double scale, size_t position_begin,
    size_t position_end, float *cosines, float *sines);

#ifdef __cplusplus
}
#endif

#endif
