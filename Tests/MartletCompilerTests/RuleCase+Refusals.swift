// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension RuleCase {
    /// Graphs that a rule must leave as they are.
    static let refusals = [
        RuleCase(
            "remove-identity",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %y = cast(%x) {dtype="f16"} : f16[T, 8] @c
                return y=%y
                """#),
        RuleCase(
            "merge-casts",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = cast(%x) {dtype="f16"} : f16[T, 8] @a
                %y = cast(%a) {dtype="f32"} : f32[T, 8] @b
                return y=%y
                """#),
        RuleCase(
            "fold-constants",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[6, 3] @a
                %b = parameter {name="b"} : f32[6, 5] @b
                %m = concat(%a, %b) {axis=1} : f32[6, 8] @l.weight
                %y = linear(%x, %m) : f32[T, 6] @l
                return y=%y
                """#),
        RuleCase(
            "merge-linears",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[2, 8] @a
                %b = parameter {name="b"} : f32[4, 8] @b
                %c = parameter {name="c"} : f32[2] @c
                %y = linear(%x, %a, %c) : f32[T, 2] @m.gate
                %z = linear(%x, %b) : f32[T, 4] @m.up
                return y=%y, z=%z
                """#),
        RuleCase(
            "merge-linears",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[2, 8] @a
                %b = parameter {name="b"} : f32[4, 8] @b
                %y = linear(%x, %a) : f32[T, 2] @m.gate
                %z = linear(%x, %b) : f32[T, 4] @n.up
                return y=%y, z=%z
                """#),
        RuleCase(
            "gated-activation",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %pu = parameter {name="u"} : f32[12, 8] @u
                %u = embedding(%pu, %t) {dtype="f32"} : f32[T, 8] @in
                %a = activation(%x) {kind="silu"} : f32[T, 8] @m
                %y = mul(%a, %u) : f32[T, 8] @m
                return y=%y, a=%a
                """#),
        RuleCase(
            "gather-rows-early",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %r = input {name="logitRows"} : i32[O] @logitRows
                %i = scale(%x) {factor=0.5} : f32[T, 8] @i
                %y = gatherRows(%i, %r) : f32[O, 8] @g
                return y=%y, i=%i
                """#),
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
                %rk = rotary(%k, %pos, %f) {headDim=4, magnitude=1.0, style="interleaved"} : \#
                f32[T, 4] @a
                %c = kvWrite(%rk, %v) {group=0, headDim=4, kvHeadCount=1, layer=0} : cache[] @a
                %y = attention(%rq, %c, %pos) {causal=true, group=0, headCount=2, headDim=4, \#
                kvHeadCount=1, layer=0, scale=0.5, softCap=0.0, window=0} : f32[T, 8] @a
                return y=%y
                """#),
        RuleCase(
            "cache-attention",
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
                return z=%z, y=%y
                """#),
        RuleCase(
            "common-subexpressions",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = scale(%x) {factor=2.0} : f32[T, 8] @a
                %b = scale(%x) {factor=2.5} : f32[T, 8] @b
                %y = mul(%a, %b) : f32[T, 8] @y
                return y=%y
                """#),
    ]
}
