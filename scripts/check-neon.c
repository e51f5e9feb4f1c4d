// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Runs the micro-kernels of one instruction set beside the portable ones on random numbers and odd
// shapes: every byte of every output must be the same. Needs no library, so that it runs wherever an
// emulator does; scripts/check-neon builds and runs it.

#include "martlet_microkernels.h"

#if defined(__aarch64__)
static long call(long number, long a, long b, long c) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b,
                  x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
#define WRITE 64
#define LEAVE 94
#else
static long call(long number, long a, long b, long c) {
    long result = number;
    __asm__ volatile("syscall" : "+a"(result) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
#define WRITE 1
#define LEAVE 231
#endif

// What compilers call by themselves.
void *memcpy(void *to, const void *from, size_t count) {
    for (size_t i = 0; i < count; i++) ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}
void *memset(void *to, int value, size_t count) {
    for (size_t i = 0; i < count; i++) ((volatile char *)to)[i] = (char)value;
    return to;
}

static void say(const char *text) {
    size_t count = 0;
    while (text[count]) count++;
    call(WRITE, 1, (long)text, (long)count);
}

static void say_number(size_t value) {
    char digits[24];
    int i = 23;
    digits[i] = 0;
    do digits[--i] = (char)('0' + value % 10);
    while (value /= 10);
    say(digits + i);
}

static size_t checks, failures;

static void compare(const char *what, const void *a, const void *b, size_t count) {
    checks++;
    for (size_t i = 0; i < count; i++) {
        if (((const uint8_t *)a)[i] == ((const uint8_t *)b)[i]) continue;
        say(what);
        say(": byte ");
        say_number(i);
        say(" differs\n");
        failures++;
        return;
    }
}

static uint64_t state = 1;
static uint32_t bits(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}
static float number(void) { return (float)(int32_t)bits() * 0x1p-30f; }

enum { T = 21, KMAX = 608, NMAX = 48, ROOM = 1 << 20 };
static float x[ROOM], other[ROOM], small[4096], ya[ROOM], yb[ROOM];
static uint8_t rows[ROOM], qa[ROOM], qb[ROOM], codes[ROOM], packed[ROOM * 4];
static uint16_t scales[ROOM], zeros[ROOM], halves[ROOM], ha[ROOM], hb[ROOM];
static float scales32[ROOM], zeros32[ROOM];
static const martlet_kernels *best, *plain;

static void poison(void) {
    memset(ya, 0xa5, sizeof ya / 8);
    memset(yb, 0xa5, sizeof yb / 8);
    memset(qa, 0xa5, sizeof qa / 8);
    memset(qb, 0xa5, sizeof qb / 8);
}

static void linear(
    const char *what, const martlet_linear_arguments *given, martlet_linear_function f,
    martlet_linear_function reference) {
    martlet_linear_arguments a = *given, b = *given;
    size_t panels = martlet_weight_panel_count(&a.weight);
    for (size_t tokens = 1; tokens <= T; tokens = tokens * 4 + 1) {
        poison();
        a.y = ya;
        b.y = yb;
        f(&a, 0, panels, 0, tokens);
        reference(&b, 0, panels, 0, tokens);
        compare(what, ya, yb, sizeof(float) * a.y_stride * T);
    }
}

static void linears_of(martlet_weight *w, int has_bias) {
    size_t count = w->input_count, stride = martlet_int8g64_row_bytes(count);
    plain->quantize_int8g64(x, KMAX, count, rows, stride, 0, T);
    martlet_linear_arguments exact = {
        .weight = *w, .x = x, .x_stride = KMAX * sizeof(float), .bias = has_bias ? small : 0,
        .y_stride = NMAX + 5};
    martlet_linear_arguments coded = exact;
    coded.x = rows;
    coded.x_stride = stride;
#define PAIR(name, arguments) linear(#name, arguments, best->name, plain->name)
    switch (w->kind) {
    case MARTLET_WEIGHT_U8:
        PAIR(linear_u8_int8g64_gemv, &coded);
        PAIR(linear_u8_int8g64_panel, &coded);
        PAIR(linear_u8_exact_gemv, &exact);
        PAIR(linear_u8_exact_panel, &exact);
        break;
    case MARTLET_WEIGHT_U4:
        PAIR(linear_u4_int8g64_gemv, &coded);
        PAIR(linear_u4_int8g64_panel, &coded);
        PAIR(linear_u4_exact_gemv, &exact);
        PAIR(linear_u4_exact_panel, &exact);
        break;
    case MARTLET_WEIGHT_F32:
        PAIR(linear_f32_exact_gemv, &exact);
        PAIR(linear_f32_exact_panel, &exact);
        break;
    case MARTLET_WEIGHT_F16:
        PAIR(linear_f16_exact_gemv, &exact);
        PAIR(linear_f16_exact_panel, &exact);
        break;
    case MARTLET_WEIGHT_BF16:
        PAIR(linear_bf16_exact_gemv, &exact);
        PAIR(linear_bf16_exact_panel, &exact);
        break;
    }
    int32_t ids[] = {0, (int32_t)w->row_count - 1, (int32_t)w->row_count, -1, 0};
    poison();
    best->gather_rows(w, ids, ya, KMAX, 0, 5);
    plain->gather_rows(w, ids, yb, KMAX, 0, 5);
    compare("gather_rows", ya, yb, sizeof(float) * KMAX * 5);
}

static void linears(void) {
    static const size_t outputs[] = {1, 37}, inputs[] = {100, 601};
    for (int n = 0; n < 2; n++)
        for (int k = 0; k < 2; k++) {
            size_t rows_ = outputs[n], count = inputs[k];
            for (int kind = 0; kind < 3; kind++) {
                martlet_weight w;
                if (!martlet_weight_describe(&w, kind, rows_, count, 0, 0, 0)) continue;
                if (kind == MARTLET_WEIGHT_F16) plain->f32_to_f16(other, halves, rows_ * count);
                if (kind == MARTLET_WEIGHT_BF16) plain->f32_to_bf16(other, halves, rows_ * count);
                martlet_pack_plain(
                    &w, kind ? (void *)halves : other, count, packed, 0,
                    martlet_weight_panel_count(&w));
                w.data = packed;
                linears_of(&w, n);
            }
            for (int kind = 3; kind < 5; kind++)
                for (size_t group = 0; group <= 128; group = group ? group * 2 : 32)
                    for (int zero = 0; zero < 3; zero++)
                        for (int type = 0; type < 3; type++) {
                            martlet_weight w;
                            if (!martlet_weight_describe(
                                    &w, kind, rows_, count, group, zero, type))
                                continue;
                            size_t groups = martlet_weight_group_count(&w), all = rows_ * groups;
                            for (size_t i = 0; i < rows_ * count; i++) codes[i] = (uint8_t)bits();
                            for (size_t i = 0; i < all; i++) {
                                scales32[i] = number() * 0.01f;
                                zeros32[i] = number();
                            }
                            if (type == 1) plain->f32_to_f16(scales32, scales, all);
                            if (type == 1) plain->f32_to_f16(zeros32, zeros, all);
                            if (type == 2) plain->f32_to_bf16(scales32, scales, all);
                            if (type == 2) plain->f32_to_bf16(zeros32, zeros, all);
                            for (size_t i = 0; zero == 1 && i < all; i++)
                                ((uint8_t *)zeros)[i] = (uint8_t)bits() & (kind == 3 ? 255 : 15);
                            martlet_canonical source = {
                                .codes = codes, .scales = type ? (void *)scales : scales32,
                                .zeros = zero == 0           ? 0
                                         : zero == 2 && !type ? (void *)zeros32
                                                              : zeros,
                                .scale_row_stride = groups};
                            martlet_pack_quantized(
                                &w, &source, packed, 0, martlet_weight_panel_count(&w));
                            w.data = packed;
                            linears_of(&w, zero != 1);
                        }
        }
}

static void row_operations(void) {
    static const size_t counts[] = {1, 15, 64, 100, 576, 601};
    for (int c = 0; c < 6; c++) {
        size_t n = counts[c], q = martlet_int8g64_row_bytes(n), all = sizeof(float) * KMAX * T;
        poison();
        best->row_sums32(x, KMAX, n, ya, 40, 0, T);
        plain->row_sums32(x, KMAX, n, yb, 40, 0, T);
        compare("row_sums32", ya, yb, sizeof(float) * 40 * T);
        best->quantize_int8g64(x, KMAX, n, qa, q, 0, T);
        plain->quantize_int8g64(x, KMAX, n, qb, q, 0, T);
        compare("quantize_int8g64", qa, qb, q * T);
        poison();
        plain->quantize_int8g64(x, KMAX, n, rows, q, 0, T);
        best->dequantize_int8g64(rows, q, n, ya, KMAX, 0, T);
        plain->dequantize_int8g64(rows, q, n, yb, KMAX, 0, T);
        compare("dequantize_int8g64", ya, yb, all);
        for (int form = 0; form < 4; form++) {
            martlet_norm_arguments a = {
                .x = x, .x_stride = KMAX, .residual = form & 1 ? other : 0, .residual_stride = KMAX,
                .weight = small, .bias = form & 2 ? small + 1000 : 0, .epsilon = 1e-5f, .count = n,
                .output = {.f32_stride = KMAX, .int8g64_stride = q}};
            for (int layer = 0; layer < 2; layer++) {
                martlet_norm_arguments b = a;
                poison();
                a.output.f32 = ya;
                a.output.int8g64 = qa;
                b.output.f32 = yb;
                b.output.int8g64 = qb;
                (layer ? best->layer_norm : best->rms_norm)(&a, 0, T);
                (layer ? plain->layer_norm : plain->rms_norm)(&b, 0, T);
                compare(layer ? "layer_norm" : "rms_norm", ya, yb, all);
                compare(layer ? "layer_norm to int8g64" : "rms_norm to int8g64", qa, qb, q * T);
            }
        }
        for (int kind = 0; kind < 5; kind++) {
            martlet_gated_arguments a = {
                .gate = x, .gate_stride = KMAX, .up = kind & 1 ? other : 0, .up_stride = KMAX,
                .count = n, .activation = kind,
                .output = {.f32 = ya, .f32_stride = KMAX, .int8g64 = qa, .int8g64_stride = q}};
            martlet_gated_arguments b = a;
            b.output.f32 = yb;
            b.output.int8g64 = qb;
            poison();
            best->gated_activation(&a, 0, T);
            plain->gated_activation(&b, 0, T);
            compare("gated_activation", ya, yb, all);
            compare("gated_activation to int8g64", qa, qb, q * T);
        }
#define VECTOR(name, ...)                                                                          \
    poison();                                                                                      \
    best->name(__VA_ARGS__, ya, n);                                                                \
    plain->name(__VA_ARGS__, yb, n);                                                               \
    compare(#name, ya, yb, sizeof(float) * (n + 16))
        VECTOR(add, x, other);
        VECTOR(multiply, x, other);
        VECTOR(scale, x, 0.3f);
        VECTOR(softmax, x);
        size_t la = best->argmax(x, n), lb = plain->argmax(x, n);
        compare("argmax", &la, &lb, sizeof la);
        double sa = best->log_sum_exp(x, n), sb = plain->log_sum_exp(x, n);
        compare("log_sum_exp", &sa, &sb, sizeof sa);
        int fa = best->all_finite(x, n), fb = plain->all_finite(x, n);
        compare("all_finite", &fa, &fb, sizeof fa);
        uint32_t ca = best->crc32c(7, x, n), cb = plain->crc32c(7, x, n);
        compare("crc32c", &ca, &cb, sizeof ca);
        uint64_t ra = best->probe_read(x, 4096), rb = plain->probe_read(x, 4096);
        (void)ra, (void)rb;
    }
}

static void conversions(void) {
    // Every half but NaN, whose payload is nobody's; then numbers of every size.
    size_t n = 0;
    for (uint32_t i = 0; i < 65536; i++)
        if ((i & 0x7c00) != 0x7c00 || !(i & 0x3ff)) halves[n++] = (uint16_t)i;
    best->f16_to_f32(halves, ya, n);
    plain->f16_to_f32(halves, yb, n);
    compare("f16_to_f32", ya, yb, sizeof(float) * n);
    n = 0;
    for (uint32_t i = 0; i < 65536; i++)
        if ((i & 0x7f80) != 0x7f80 || !(i & 0x7f)) halves[n++] = (uint16_t)i;
    best->bf16_to_f32(halves, ya, n);
    plain->bf16_to_f32(halves, yb, n);
    compare("bf16_to_f32", ya, yb, sizeof(float) * n);
    for (size_t i = 0; i < 200003; i++) {
        uint32_t value = bits();
        if ((value & 0x7f800000) == 0x7f800000) value &= 0xff800000;
        memcpy(other + i, &value, 4);
    }
    best->f32_to_f16(other, ha, 200003);
    plain->f32_to_f16(other, hb, 200003);
    compare("f32_to_f16", ha, hb, 400006);
    best->f32_to_bf16(other, ha, 200003);
    plain->f32_to_bf16(other, hb, 200003);
    compare("f32_to_bf16", ha, hb, 400006);
}

enum { D = 40, HEADS = 6, SHARED = 3, POSITIONS = 1100, BLOCKS = 70 };

static void attentions(void) {
    static float cosines[T * D], sines[T * D];
    static int32_t slots[POSITIONS], table[BLOCKS], ends[T];
    static uint8_t cache_a[BLOCKS * 2 * 2 * D * 16 * 4], cache_b[BLOCKS * 2 * 2 * D * 16 * 4];
    for (int i = 0; i < T * D; i++) {
        cosines[i] = number();
        sines[i] = number();
    }
    for (int pairs = 0; pairs < 2; pairs++) {
        martlet_rotary_arguments a = {
            .x = x, .x_token_stride = D * HEADS + 3, .x_head_stride = D, .y = ya,
            .y_token_stride = D * HEADS, .y_head_stride = D, .head_count = HEADS, .head_dim = D,
            .rotary_dim = pairs ? 24 : D, .pairs = pairs, .cosines = cosines, .sines = sines};
        martlet_rotary_arguments b = a;
        b.y = yb;
        poison();
        best->rotary(&a, 0, T);
        plain->rotary(&b, 0, T);
        compare("rotary", ya, yb, sizeof(float) * D * HEADS * T);
    }
    // Blocks in any order; every seventh position is not written by this call.
    for (int i = 0; i < BLOCKS; i++) table[i] = (i * 29 + 3) % BLOCKS;
    for (int i = 0; i < POSITIONS; i++)
        slots[i] = i % 7 == 6 ? -1 : table[i / 16] * 16 + i % 16;
    for (int type = 0; type < 3; type++) {
        size_t size = type ? 2 : 4, head = 2 * D * 16 * size;
        memset(cache_a, 0, sizeof cache_a);
        memset(cache_b, 0, sizeof cache_b);
        martlet_kv_layer kv = {
            .element = type, .head_dim = D, .keys = cache_a, .values = cache_a + D * 16 * size,
            .block_stride = 2 * head, .head_stride = head};
        martlet_kv_write_arguments wa = {
            .kv = kv, .keys = x, .values = other, .token_stride = 2 * D, .head_stride = D,
            .slots = slots};
        martlet_kv_write_arguments wb = wa;
        wb.kv.keys = cache_b;
        wb.kv.values = cache_b + D * 16 * size;
        best->kv_write(&wa, 0, 2, 0, POSITIONS);
        plain->kv_write(&wb, 0, 2, 0, POSITIONS);
        compare("kv_write", cache_a, cache_b, sizeof cache_a);
        for (int form = 0; form < 6; form++)
            for (int tokens = 1; tokens <= T; tokens += 9) {
                for (int i = 0; i < tokens; i++)
                    ends[i] = form == 5 ? i : 1 + (i * 61 + form * 180) % POSITIONS;
                martlet_attention_arguments a = {
                    .kv = kv, .queries = x, .query_token_stride = D * HEADS,
                    .query_head_stride = D, .output = ya, .output_token_stride = D * HEADS,
                    .output_head_stride = D, .heads_per_kv = SHARED, .block_table = table,
                    .visible_end = ends, .window = form == 1 ? 100 : 0, .scale = 0.158f,
                    .soft_cap = form == 2 ? 5 : 0, .alibi_slopes = form == 3 ? small : 0};
                martlet_attention_arguments b = a;
                b.output = yb;
                poison();
                best->attention(&a, 0, 2, 0, (size_t)tokens);
                plain->attention(&b, 0, 2, 0, (size_t)tokens);
                compare("attention", ya, yb, sizeof(float) * D * HEADS * T);
            }
    }
}

__attribute__((used)) void run(void) {
    best = martlet_kernels_for(martlet_best_isa());
    plain = martlet_kernels_for(MARTLET_ISA_SCALAR);
    for (size_t i = 0; i < ROOM; i++) {
        x[i] = number();
        other[i] = number() * (i % 97 ? 1 : 40);
    }
    for (size_t i = 0; i < 4096; i++) small[i] = number();
    linears();
    row_operations();
    attentions();
    conversions();
    say(best->name);
    say(": ");
    say_number(checks);
    say(" comparisons with ");
    say(plain->name);
    say(", ");
    say_number(failures);
    say(" differ\n");
    call(LEAVE, failures || best == plain ? 1 : 0, 0, 0);
}

#if defined(__aarch64__)
__asm__(".globl _start\n_start:\n bl run\n");
#else
__asm__(".globl _start\n_start:\n and $-16, %rsp\n call run\n");
#endif
