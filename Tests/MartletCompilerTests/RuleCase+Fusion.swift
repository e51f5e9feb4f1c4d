// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension RuleCase {
    /// Attention, norms and activation codes.
    static let rewritesOfFusion = [
        RuleCase(
            "rotary-cache-attention",
            before:
                #"""
                kv layers=1 heads=1 dim=4 dtype=f32 block=16
                %t = input {name="tokens"} : i32[T] @tokens
                %pos = input {name="positions"} : i32[T] @positions
                %f = constant {name="f"} : f32[2] @f
                %pq = parameter {name="q"} : f32[12, 8] @q
                %q = embedding(%pq, %t) {dtype="f32"} : f32[T, 8] @in
                %pk = parameter {name="k"} : f32[12, 4] @k
                %k = embedding(%pk, %t) {dtype="f32"} : f32[T, 4] @in
                %pv = parameter {name="v"} : f32[12, 4] @v
                %v = embedding(%pv, %t) {dtype="f32"} : f32[T, 4] @in
                %rq = rotary(%q, %pos, %f) {headDim=4, magnitude=1.0, style="half"} : f32[T, 8] @a
                %rk = rotary(%k, %pos, %f) {headDim=4, magnitude=1.0, style="half"} : f32[T, 4] @a
                %c = kvWrite(%rk, %v) {group=0, headDim=4, kvHeadCount=1, layer=0} : cache[] @a
                %y = attention(%rq, %c, %pos) {causal=true, group=0, headCount=2, headDim=4, \#
                kvHeadCount=1, layer=0, scale=0.5, softCap=0.0, window=0} : f32[T, 8] @a
                return y=%y
                """#,
            after:
                #"""
                kv layers=1 heads=1 dim=4 dtype=f32 block=16
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = input {name="positions"} : i32[T] @positions
                %2 = constant {name="f"} : f32[2] @f
                %3 = parameter {name="q"} : f32[12, 8] @q
                %4 = embedding(%3, %0) {dtype="f32"} : f32[T, 8] @in
                %5 = parameter {name="k"} : f32[12, 4] @k
                %6 = embedding(%5, %0) {dtype="f32"} : f32[T, 4] @in
                %7 = parameter {name="v"} : f32[12, 4] @v
                %8 = embedding(%7, %0) {dtype="f32"} : f32[T, 4] @in
                %9 = cachedAttention(%4, %6, %8, %1, %2, _) {causal=true, group=0, headCount=2, \#
                headDim=4, kvHeadCount=1, layer=0, magnitude=1.0, scale=0.5, softCap=0.0, \#
                style="half", window=0} : f32[T, 8] @a
                return y=%9
                """#),
        RuleCase(
            "cache-attention",
            before:
                #"""
                kv layers=1 heads=1 dim=4 dtype=f32 block=16
                %t = input {name="tokens"} : i32[T] @tokens
                %pos = input {name="positions"} : i32[T] @positions
                %pq = parameter {name="q"} : f32[12, 8] @q
                %q = embedding(%pq, %t) {dtype="f32"} : f32[T, 8] @in
                %pk = parameter {name="k"} : f32[12, 4] @k
                %k = embedding(%pk, %t) {dtype="f32"} : f32[T, 4] @in
                %pv = parameter {name="v"} : f32[12, 4] @v
                %v = embedding(%pv, %t) {dtype="f32"} : f32[T, 4] @in
                %c = kvWrite(%k, %v) {group=0, headDim=4, kvHeadCount=1, layer=0} : cache[] @a
                %y = attention(%q, %c, %pos) {causal=true, group=0, headCount=2, headDim=4, \#
                kvHeadCount=1, layer=0, scale=0.5, softCap=0.0, window=0} : f32[T, 8] @a
                return y=%y
                """#,
            after:
                #"""
                kv layers=1 heads=1 dim=4 dtype=f32 block=16
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = input {name="positions"} : i32[T] @positions
                %2 = parameter {name="q"} : f32[12, 8] @q
                %3 = embedding(%2, %0) {dtype="f32"} : f32[T, 8] @in
                %4 = parameter {name="k"} : f32[12, 4] @k
                %5 = embedding(%4, %0) {dtype="f32"} : f32[T, 4] @in
                %6 = parameter {name="v"} : f32[12, 4] @v
                %7 = embedding(%6, %0) {dtype="f32"} : f32[T, 4] @in
                %8 = cachedAttention(%3, %5, %7, %1, _, _) {causal=true, group=0, headCount=2, \#
                headDim=4, kvHeadCount=1, layer=0, magnitude=1.0, scale=0.5, softCap=0.0, \#
                style="none", window=0} : f32[T, 8] @a
                return y=%8
                """#),
        RuleCase(
            "add-norm",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %pu = parameter {name="u"} : f32[12, 8] @u
                %u = embedding(%pu, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[8] @a
                %s = add(%x, %u) : f32[T, 8] @r
                %y = norm(%s, %a) {epsilon=1e-05, kind="rms"} : f32[T, 8] @n
                return y=%y, s=%s
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="u"} : f32[12, 8] @u
                %4 = embedding(%3, %0) {dtype="f32"} : f32[T, 8] @in
                %5 = parameter {name="a"} : f32[8] @a
                %6, %7 = addNorm(%2, %4, %5) {epsilon=1e-05, kind="rms"} : f32[T, 8]; f32[T, 8] @n
                return y=%7, s=%6
                """#),
        RuleCase(
            "quantize-in-producer",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[8] @a
                %y = norm(%x, %a) {epsilon=1e-05, kind="rms"} : f32[T, 8] @n
                %z = quantize(%y) {format="int8g64"} : int8g64[T, 8] @q
                return z=%z
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="a"} : f32[8] @a
                %4 = norm(%2, %3) {epsilon=1e-05, format="int8g64", kind="rms"} : int8g64[T, 8] @n
                return z=%4
                """#),
        RuleCase(
            "quantize-in-producer",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %y = activation(%x) {kind="silu"} : f32[T, 8] @m
                %z = quantize(%y) {format="int8g64"} : int8g64[T, 8] @q
                return z=%z
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = activation(%2) {format="int8g64", kind="silu"} : int8g64[T, 8] @m
                return z=%3
                """#),
        RuleCase(
            "quantize-in-producer",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %pu = parameter {name="u"} : f32[12, 8] @u
                %u = embedding(%pu, %t) {dtype="f32"} : f32[T, 8] @in
                %y = gatedActivation(%x, %u) {kind="silu"} : f32[T, 8] @m
                %z = quantize(%y) {format="int8g64"} : int8g64[T, 8] @q
                return z=%z
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="u"} : f32[12, 8] @u
                %4 = embedding(%3, %0) {dtype="f32"} : f32[T, 8] @in
                %5 = gatedActivation(%2, %4) {format="int8g64", kind="silu"} : int8g64[T, 8] @m
                return z=%5
                """#),
        RuleCase(
            "quantize-in-producer",
            before:
                #"""
                kv layers=1 heads=1 dim=4 dtype=f32 block=16
                %t = input {name="tokens"} : i32[T] @tokens
                %pos = input {name="positions"} : i32[T] @positions
                %f = constant {name="f"} : f32[2] @f
                %pq = parameter {name="q"} : f32[12, 8] @q
                %q = embedding(%pq, %t) {dtype="f32"} : f32[T, 8] @in
                %pk = parameter {name="k"} : f32[12, 4] @k
                %k = embedding(%pk, %t) {dtype="f32"} : f32[T, 4] @in
                %pv = parameter {name="v"} : f32[12, 4] @v
                %v = embedding(%pv, %t) {dtype="f32"} : f32[T, 4] @in
                %y = cachedAttention(%q, %k, %v, %pos, %f, _) {causal=true, group=0, \#
                headCount=2, headDim=4, kvHeadCount=1, layer=0, magnitude=1.0, scale=0.5, \#
                softCap=0.0, style="half", window=0} : f32[T, 8] @a
                %z = quantize(%y) {format="int8g64"} : int8g64[T, 8] @q
                return z=%z
                """#,
            after:
                #"""
                kv layers=1 heads=1 dim=4 dtype=f32 block=16
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = input {name="positions"} : i32[T] @positions
                %2 = constant {name="f"} : f32[2] @f
                %3 = parameter {name="q"} : f32[12, 8] @q
                %4 = embedding(%3, %0) {dtype="f32"} : f32[T, 8] @in
                %5 = parameter {name="k"} : f32[12, 4] @k
                %6 = embedding(%5, %0) {dtype="f32"} : f32[T, 4] @in
                %7 = parameter {name="v"} : f32[12, 4] @v
                %8 = embedding(%7, %0) {dtype="f32"} : f32[T, 4] @in
                %9 = cachedAttention(%4, %6, %8, %1, %2, _) {causal=true, format="int8g64", \#
                group=0, headCount=2, headDim=4, kvHeadCount=1, layer=0, magnitude=1.0, \#
                scale=0.5, softCap=0.0, style="half", window=0} : int8g64[T, 8] @a
                return z=%9
                """#),
        RuleCase(
            "quantize-in-producer",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %pu = parameter {name="u"} : f32[12, 8] @u
                %u = embedding(%pu, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[8] @a
                %s, %y = addNorm(%x, %u, %a) {epsilon=1e-05, kind="rms"} : f32[T, 8]; f32[T, 8] @n
                %z = quantize(%y) {format="int8g64"} : int8g64[T, 8] @q
                return z=%z, s=%s
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="u"} : f32[12, 8] @u
                %4 = embedding(%3, %0) {dtype="f32"} : f32[T, 8] @in
                %5 = parameter {name="a"} : f32[8] @a
                %6, %7 = addNorm(%2, %4, %5) {epsilon=1e-05, format="int8g64", kind="rms"} : \#
                f32[T, 8]; int8g64[T, 8] @n
                return z=%7, s=%6
                """#),
        RuleCase(
            "common-subexpressions",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = scale(%x) {factor=2.0} : f32[T, 8] @a
                %b = scale(%x) {factor=2.0} : f32[T, 8] @b
                %y = mul(%a, %b) : f32[T, 8] @y
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = scale(%2) {factor=2.0} : f32[T, 8] @a
                %4 = mul(%3, %3) : f32[T, 8] @y
                return y=%4
                """#),
    ]
}
