// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// exp, tanh, erf and the activations, for F a float or a vector of floats (I: int32 of that shape).
// Include with F, I and MATH(name) defined. Polynomials go by Horner with fma, so that every shape
// of F gives the same bits. Coefficients: Taylor (exp), Chebyshev fits in f64 (the others).

MARTLET_INLINE I MATH(bits)(F x) {
    I bits;
    martlet_copy(&bits, &x, sizeof x);
    return bits;
}

MARTLET_INLINE F MATH(from_bits)(I bits) {
    F x;
    martlet_copy(&x, &bits, sizeof x);
    return x;
}

MARTLET_INLINE F MATH(fma)(F a, F b, F c) { return __builtin_elementwise_fma(a, b, c); }
MARTLET_INLINE F MATH(abs)(F x) { return MATH(from_bits)(MATH(bits)(x) & (I)0x7fffffff); }

/// Round to nearest even, |x| < 2^22, as an integer: adding 1.5 * 2^23 leaves it in the low bits.
MARTLET_INLINE I MATH(round)(F x) {
    return MATH(bits)(x + (F)12582912.0f) - (I)0x4b400000;
}

/// exp(x), within 1 ulp where the result is normal; NaN stays NaN.
MARTLET_INLINE F MATH(exp)(F x) {
    x = x > (F)90.0f ? (F)90.0f : x;
    x = x < (F)-110.0f ? (F)-110.0f : x;
    F shifted = MATH(fma)(x, (F)0x1.715476p+0f, (F)12582912.0f);
    I n = MATH(bits)(shifted) - (I)0x4b400000;
    F whole = shifted - (F)12582912.0f;
    F r = MATH(fma)(whole, (F)-0x1.62e4p-1f, x);
    r = MATH(fma)(whole, (F)-0x1.7f7d1cp-20f, r);
    F p = (F)(1.0f / 5040);
    p = MATH(fma)(p, r, (F)(1.0f / 720));
    p = MATH(fma)(p, r, (F)(1.0f / 120));
    p = MATH(fma)(p, r, (F)(1.0f / 24));
    p = MATH(fma)(p, r, (F)(1.0f / 6));
    p = MATH(fma)(p, r, (F)0.5f);
    p = MATH(fma)(p, r, (F)1.0f);
    p = MATH(fma)(p, r, (F)1.0f);
    // Two powers of two, since 2^n alone may be no normal number.
    I half = n >> 1;
    return p * MATH(from_bits)((half + (I)127) << 23) * MATH(from_bits)((n - half + (I)127) << 23);
}

MARTLET_INLINE F MATH(copy_sign)(F magnitude, F sign) {
    return MATH(from_bits)(MATH(bits)(magnitude) | (MATH(bits)(sign) & (I)(int32_t)0x80000000));
}

/// tanh(x), within 3 ulp.
MARTLET_INLINE F MATH(tanh)(F x) {
    F z = x * x;
    F p = (F)0x1.1e9d8cp-9f;
    p = MATH(fma)(p, z, (F)-0x1.0d5c0ep-7f);
    p = MATH(fma)(p, z, (F)0x1.63ca3ap-6f);
    p = MATH(fma)(p, z, (F)-0x1.b9f32cp-5f);
    p = MATH(fma)(p, z, (F)0x1.111074p-3f);
    p = MATH(fma)(p, z, (F)-0x1.555554p-2f);
    F small = MATH(fma)(p * z, x, x);
    F e = MATH(exp)(MATH(abs)(x) * (F)-2.0f);
    F large = MATH(copy_sign)(((F)1.0f - e) / ((F)1.0f + e), x);
    return MATH(abs)(x) < (F)0.6f ? small : large;
}

/// erf(x), within 3 ulp.
MARTLET_INLINE F MATH(erf)(F x) {
    F z = x * x;
    F p = (F)-0x1.4497860p-17f;
    p = MATH(fma)(p, z, (F)0x1.d89ff6p-14f);
    p = MATH(fma)(p, z, (F)-0x1.bcd3a4p-11f);
    p = MATH(fma)(p, z, (F)0x1.562abep-8f);
    p = MATH(fma)(p, z, (F)-0x1.b829dp-6f);
    p = MATH(fma)(p, z, (F)0x1.ce2f0ap-4f);
    p = MATH(fma)(p, z, (F)-0x1.812746p-2f);
    p = MATH(fma)(p, z, (F)0x1.20dd76p+0f);
    F small = p * x;
    // -log(erfc(t)) for t in 1 ... 4.
    F t = MATH(abs)(x);
    t = t > (F)4.0f ? (F)4.0f : t;
    F q = (F)-0x1.b14578p-20f;
    q = MATH(fma)(q, t, (F)0x1.7e711ep-15f);
    q = MATH(fma)(q, t, (F)-0x1.36c82ep-11f);
    q = MATH(fma)(q, t, (F)0x1.36a7bcp-8f);
    q = MATH(fma)(q, t, (F)-0x1.aff5a4p-6f);
    q = MATH(fma)(q, t, (F)0x1.c2788cp-4f);
    q = MATH(fma)(q, t, (F)0x1.438d42p-1f);
    q = MATH(fma)(q, t, (F)0x1.21529ap+0f);
    q = MATH(fma)(q, t, (F)-0x1.3df11ep-12f);
    F large = MATH(copy_sign)((F)1.0f - MATH(exp)(-q), x);
    return MATH(abs)(x) < (F)1.0f ? small : large;
}

MARTLET_INLINE F MATH(activate)(F x, martlet_activation activation) {
    switch (activation) {
    case MARTLET_ACTIVATION_SILU:
        return x / ((F)1.0f + MATH(exp)(-x));
    case MARTLET_ACTIVATION_GELU_ERF:
        return (F)0.5f * x * ((F)1.0f + MATH(erf)(x * (F)0x1.6a09e6p-1f));
    case MARTLET_ACTIVATION_GELU_TANH: {
        F cube = x * x * x;
        F inner = (F)0x1.988454p-1f * MATH(fma)((F)0.044715f, cube, x);
        return (F)0.5f * x * ((F)1.0f + MATH(tanh)(inner));
    }
    case MARTLET_ACTIVATION_RELU:
        return x < (F)0.0f ? (F)0.0f : x;
    default:
        return x;
    }
}
