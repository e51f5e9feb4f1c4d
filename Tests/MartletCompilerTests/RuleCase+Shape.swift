// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension RuleCase {
    /// Cleanup, folding and merging.
    static let rewritesOfShape = [
        RuleCase(
            "remove-identity",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %y = cast(%x) {dtype="f32"} : f32[T, 8] @c
                %o = scale(%y) {factor=2.0} : f32[T, 8] @s
                return o=%o, y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = scale(%2) {factor=2.0} : f32[T, 8] @s
                return o=%3, y=%2
                """#),
        RuleCase(
            "remove-identity",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %y = reshape(%x) {shape="T,8"} : f32[T, 8] @c
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                return y=%2
                """#),
        RuleCase(
            "remove-identity",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %y = slice(%x) {count=8, start=0} : f32[T, 8] @c
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                return y=%2
                """#),
        RuleCase(
            "remove-identity",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %y = split(%x) {sizes=[8]} : f32[T, 8] @c
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                return y=%2
                """#),
        RuleCase(
            "merge-reshapes",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = reshape(%x) {shape="2*T,4"} : f32[2*T, 4] @a
                %y = reshape(%a) {shape="4*T,2"} : f32[4*T, 2] @b
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = reshape(%2) {shape="4*T,2"} : f32[4*T, 2] @b
                return y=%3
                """#),
        RuleCase(
            "merge-casts",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f16"} : f16[T, 8] @in
                %a = cast(%x) {dtype="f32"} : f32[T, 8] @a
                %y = cast(%a) {dtype="bf16"} : bf16[T, 8] @b
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f16"} : f16[T, 8] @in
                %3 = cast(%2) {dtype="bf16"} : bf16[T, 8] @b
                return y=%3
                """#),
        RuleCase(
            "fold-constants",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[2, 8] @a
                %b = parameter {name="b"} : f32[4, 8] @b
                %m = concat(%a, %b) {axis=0} : f32[6, 8] @l.weight
                %y = linear(%x, %m) : f32[T, 6] @l
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="l.weight", source="concat(a[2x8], b[4x8])"} : f32[6, 8] \#
                @l.weight
                %4 = linear(%2, %3) : f32[T, 6] @l
                return y=%4
                """#),
        RuleCase(
            "fold-constants",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[6, 8] @a
                %m = normalizeRows(%a) : f32[6, 8] @n
                %y = linear(%x, %m) : f32[T, 6] @l
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="n", source="normalizeRows(a[6x8])"} : f32[6, 8] @n
                %4 = linear(%2, %3) : f32[T, 6] @l
                return y=%4
                """#),
        RuleCase(
            "fold-constants",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[8, 6] @a
                %m = transpose(%a) : f32[6, 8] @t
                %y = linear(%x, %m) : f32[T, 6] @l
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="t", source="transpose(a[8x6])"} : f32[6, 8] @t
                %4 = linear(%2, %3) : f32[T, 6] @l
                return y=%4
                """#),
        RuleCase(
            "fold-constants",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[6, 8] @a
                %m = cast(%a) {dtype="f16"} : f16[6, 8] @c
                %y = linear(%x, %m) : f32[T, 6] @l
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="c", source="cast(a[6x8])"} : f16[6, 8] @c
                %4 = linear(%2, %3) : f32[T, 6] @l
                return y=%4
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
                %d = parameter {name="d"} : f32[4] @d
                %y = linear(%x, %a, %c) : f32[T, 2] @m.gate
                %z = linear(%x, %b, %d) : f32[T, 4] @m.up
                return y=%y, z=%z
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="a"} : f32[2, 8] @a
                %4 = parameter {name="b"} : f32[4, 8] @b
                %5 = parameter {name="c"} : f32[2] @c
                %6 = parameter {name="d"} : f32[4] @d
                %7 = concat(%3, %4) {axis=0} : f32[6, 8] @m.gate_up.weight
                %8 = concat(%5, %6) {axis=0} : f32[6] @m.gate_up.bias
                %9 = linear(%2, %7, %8) : f32[T, 6] @m.gate_up
                %10, %11 = split(%9) {sizes=[2, 4]} : f32[T, 2]; f32[T, 4] @m.gate_up
                return y=%10, z=%11
                """#),
        RuleCase(
            "dead-code",
            before:
                #"""
                kv layers=1 heads=1 dim=4 dtype=f32 block=16
                %t = input {name="tokens"} : i32[T] @tokens
                %pos = input {name="positions"} : i32[T] @positions
                %f = constant {name="f"} : f32[2] @f
                %px = parameter {name="x"} : f32[12, 4] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 4] @in
                %c = kvWrite(%x, %x) {group=0, headDim=4, kvHeadCount=1, layer=0} : cache[] @w
                %w = parameter {name="w"} : f32[6, 4] @w
                %r = rotary(%x, %pos, %f) {headDim=4, magnitude=1.0, style="half"} : f32[T, 4] @a
                %u = linear(%r, %w) : f32[T, 6] @l
                %v = linear(%x, %w) : f32[T, 6] @m
                return y=%v
                """#,
            after:
                #"""
                kv layers=1 heads=1 dim=4 dtype=f32 block=16
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 4] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 4] @in
                %3 = kvWrite(%2, %2) {group=0, headDim=4, kvHeadCount=1, layer=0} : cache[] @w
                %4 = parameter {name="w"} : f32[6, 4] @w
                %5 = linear(%2, %4) : f32[T, 6] @m
                return y=%5
                """#),
    ]
}
