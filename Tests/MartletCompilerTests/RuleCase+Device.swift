// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension RuleCase {
    /// What devices with kernels for it make of linears and their neighbours.
    static let rewritesForDevices = [
        RuleCase(
            "linear-add-norm",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %w = parameter {name="w"} : f32[8, 8] @w
                %b = parameter {name="b"} : f32[8] @b
                %a = parameter {name="a"} : f32[8] @a
                %y = linear(%x, %w, %b) : f32[T, 8] @l
                %s, %z = addNorm(%x, %y, %a) {epsilon=1e-05, kind="rms"} : f32[T, 8]; f32[T, 8] @n
                return s=%s, z=%z
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="w"} : f32[8, 8] @w
                %4 = parameter {name="b"} : f32[8] @b
                %5 = parameter {name="a"} : f32[8] @a
                %6 = linearAdd(%2, %3, %2, %4) : f32[T, 8] @l
                %7 = norm(%6, %5) {epsilon=1e-05, kind="rms"} : f32[T, 8] @n
                return s=%6, z=%7
                """#),
        RuleCase(
            "linear-add-norm",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %w = parameter {name="w"} : f32[8, 8] @w
                %a = parameter {name="a"} : f32[8] @a
                %y = linear(%x, %w) : f32[T, 8] @l
                %s, %z = addNorm(%y, %x, %a) {epsilon=1e-05, kind="rms"} : f32[T, 8]; f32[T, 8] @n
                return s=%s, z=%z
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="w"} : f32[8, 8] @w
                %4 = parameter {name="a"} : f32[8] @a
                %5 = linearAdd(%2, %3, %2, _) : f32[T, 8] @l
                %6 = norm(%5, %4) {epsilon=1e-05, kind="rms"} : f32[T, 8] @n
                return s=%5, z=%6
                """#),
        RuleCase(
            "linear-add",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %w = parameter {name="w"} : f32[8, 8] @w
                %y = linear(%x, %w) : f32[T, 8] @l
                %z = add(%x, %y) : f32[T, 8] @s
                return z=%z
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="w"} : f32[8, 8] @w
                %4 = linearAdd(%2, %3, %2, _) : f32[T, 8] @l
                return z=%4
                """#),
        RuleCase(
            "linear-add",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %w = parameter {name="w"} : f32[8, 8] @w
                %b = parameter {name="b"} : f32[8] @b
                %y = linear(%x, %w, %b) : f32[T, 8] @l
                %z = add(%y, %x) : f32[T, 8] @s
                return z=%z
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="w"} : f32[8, 8] @w
                %4 = parameter {name="b"} : f32[8] @b
                %5 = linearAdd(%2, %3, %2, %4) : f32[T, 8] @l
                return z=%5
                """#),
        RuleCase(
            "norm-linear",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[8] @a
                %w = parameter {name="w"} : f32[6, 8] @w
                %n = norm(%x, %a) {epsilon=1e-05, kind="rms"} : f32[T, 8] @n
                %y = linear(%n, %w) : f32[T, 6] @l
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="a"} : f32[8] @a
                %4 = parameter {name="w"} : f32[6, 8] @w
                %5 = normLinear(%2, %3, %4, _) {epsilon=1e-05, kind="rms"} : f32[T, 6] @l
                return y=%5
                """#),
        RuleCase(
            "norm-gated-linear",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[8] @a
                %w = parameter {name="w"} : f32[12, 8] @w
                %n = normLinear(%x, %a, %w) {epsilon=1e-05, kind="rms"} : f32[T, 12] @l
                %g, %u = split(%n) {sizes=[6, 6]} : f32[T, 6]; f32[T, 6] @l
                %y = gatedActivation(%g, %u) {kind="silu"} : f32[T, 6] @m
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="a"} : f32[8] @a
                %4 = parameter {name="w"} : f32[12, 8] @w
                %5 = normGatedLinear(%2, %3, %4) {epsilon=1e-05, kind="silu", norm="rms"} : f32[T, 6] @m
                return y=%5
                """#),
    ]

    /// Rows of devices' rules that must not apply.
    static let refusalsForDevices = [
        // The product is read again.
        RuleCase(
            "linear-add",
            before:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="w"} : f32[8, 8] @w
                %4 = linear(%2, %3) : f32[T, 8] @l
                %5 = add(%2, %4) : f32[T, 8] @s
                return y=%4, z=%5
                """#),
        // The norm is read again.
        RuleCase(
            "norm-linear",
            before:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="a"} : f32[8] @a
                %4 = parameter {name="w"} : f32[6, 8] @w
                %5 = norm(%2, %3) {epsilon=1e-05, kind="rms"} : f32[T, 8] @n
                %6 = linear(%5, %4) : f32[T, 6] @l
                return n=%5, y=%6
                """#),
        // Gate and up are of different sizes.
        RuleCase(
            "norm-gated-linear",
            before:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="a"} : f32[8] @a
                %4 = parameter {name="w"} : f32[18, 8] @w
                %5 = normLinear(%2, %3, %4) {epsilon=1e-05, kind="rms"} : f32[T, 18] @l
                %6, %7, %8 = split(%5) {sizes=[6, 6, 6]} : f32[T, 6]; f32[T, 6]; f32[T, 6] @l
                %9 = gatedActivation(%6, %7) {kind="silu"} : f32[T, 6] @m
                return y=%9, z=%8
                """#),
    ]
}
