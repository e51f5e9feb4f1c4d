// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Which table this CPU can run, and the rotary tables (f64, no ISA of their own).

#include "shared/internal.h"

static int is_supported(martlet_isa isa) {
#if MARTLET_X86
    __builtin_cpu_init();
    int has_base = __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")
        && __builtin_cpu_supports("sse4.2");
    int has_avx2 = has_base && __builtin_cpu_supports("avx2");
    switch (isa) {
    case MARTLET_ISA_SCALAR: return has_base;
    case MARTLET_ISA_AVX2: return has_avx2;
    case MARTLET_ISA_AVX512:
        return has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vnni");
    default: return 0;
    }
#elif MARTLET_ARM
    return isa == MARTLET_ISA_SCALAR || isa == MARTLET_ISA_NEON;
#else
    return isa == MARTLET_ISA_SCALAR;
#endif
}

const martlet_kernels *martlet_kernels_for(martlet_isa isa) {
    if (!is_supported(isa)) return NULL;
    switch (isa) {
#if MARTLET_X86
    case MARTLET_ISA_AVX2: return &martlet_kernels_avx2;
    case MARTLET_ISA_AVX512: return &martlet_kernels_avx512;
#elif MARTLET_ARM
    case MARTLET_ISA_NEON: return &martlet_kernels_neon;
#endif
    case MARTLET_ISA_SCALAR: return &martlet_kernels_scalar;
    default: return NULL;
    }
}

martlet_isa martlet_best_isa(void) {
    static const martlet_isa order[] = {MARTLET_ISA_AVX512, MARTLET_ISA_AVX2, MARTLET_ISA_NEON};
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        if (martlet_kernels_for(order[i])) return order[i];
    }
    return MARTLET_ISA_SCALAR;
}

/// sin and cos of an angle from 0 to 2^31: reduction by pi/2 in three parts, then Taylor on
/// |r| <= pi/4. Within 1e-15 up to 2^20.
static void sine_and_cosine(double angle, double *sine, double *cosine) {
    // Rounds to an integer: adding 1.5 * 2^52 leaves it in the low bits.
    double shifted = angle * 0.63661977236758134308 + 0x1.8p52;
    uint64_t quadrant;
    martlet_copy(&quadrant, &shifted, 8);
    double n = shifted - 0x1.8p52;
    // pi/2 in three parts of which the first two have 32 bits: exact products for n < 2^21.
    double r = angle - n * 0x1.921fb544p+0;
    r -= n * 0x1.0b4611a6p-34;
    r -= n * 0x1.3198a2e037073p-69;
    double z = r * r, s = 0, c = 0;
    for (int i = 17; i >= 3; i -= 2) s = (s + 1) * -z / (i * (i - 1));
    for (int i = 16; i >= 2; i -= 2) c = (c + 1) * -z / (i * (i - 1));
    s = r + r * s;
    c = 1 + c;
    *sine = quadrant & 1 ? c : s;
    *cosine = quadrant & 1 ? s : c;
    if (quadrant & 2) *sine = -*sine;
    if ((quadrant + 1) & 2) *cosine = -*cosine;
}

void martlet_rotary_table(
    const double *inverse_frequencies, size_t count, double scale, size_t position_begin,
    size_t position_end, float *cosines, float *sines) {
    for (size_t p = position_begin; p < position_end; p++) {
        for (size_t i = 0; i < count; i++) {
            double sine, cosine;
            sine_and_cosine((double)p * inverse_frequencies[i], &sine, &cosine);
            cosines[p * count + i] = (float)(cosine * scale);
            sines[p * count + i] = (float)(sine * scale);
        }
    }
}
