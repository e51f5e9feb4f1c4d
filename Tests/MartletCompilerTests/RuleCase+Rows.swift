// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension RuleCase {
    /// Gates, and rows dropped early.
    static let rewritesOfRows = [
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
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="u"} : f32[12, 8] @u
                %4 = embedding(%3, %0) {dtype="f32"} : f32[T, 8] @in
                %5 = gatedActivation(%2, %4) {kind="silu"} : f32[T, 8] @m
                return y=%5
                """#),
        RuleCase(
            "gather-rows-early",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[6, 8] @a
                %r = input {name="logitRows"} : i32[O] @logitRows
                %i = linear(%x, %a) : f32[T, 6] @i
                %y = gatherRows(%i, %r) : f32[O, 6] @g
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="a"} : f32[6, 8] @a
                %4 = input {name="logitRows"} : i32[O] @logitRows
                %5 = gatherRows(%2, %4) : f32[O, 8] @g
                %6 = linear(%5, %3) : f32[O, 6] @i
                return y=%6
                """#),
        RuleCase(
            "gather-rows-early",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %a = parameter {name="a"} : f32[8] @a
                %r = input {name="logitRows"} : i32[O] @logitRows
                %i = norm(%x, %a) {epsilon=1e-05, kind="rms"} : f32[T, 8] @i
                %y = gatherRows(%i, %r) : f32[O, 8] @g
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="a"} : f32[8] @a
                %4 = input {name="logitRows"} : i32[O] @logitRows
                %5 = gatherRows(%2, %4) : f32[O, 8] @g
                %6 = norm(%5, %3) {epsilon=1e-05, kind="rms"} : f32[O, 8] @i
                return y=%6
                """#),
        RuleCase(
            "gather-rows-early",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %pu = parameter {name="u"} : f32[12, 8] @u
                %u = embedding(%pu, %t) {dtype="f32"} : f32[T, 8] @in
                %r = input {name="logitRows"} : i32[O] @logitRows
                %i = add(%x, %u) : f32[T, 8] @i
                %y = gatherRows(%i, %r) : f32[O, 8] @g
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="u"} : f32[12, 8] @u
                %4 = embedding(%3, %0) {dtype="f32"} : f32[T, 8] @in
                %5 = input {name="logitRows"} : i32[O] @logitRows
                %6 = gatherRows(%2, %5) : f32[O, 8] @g
                %7 = gatherRows(%4, %5) : f32[O, 8] @g
                %8 = add(%6, %7) : f32[O, 8] @i
                return y=%8
                """#),
        RuleCase(
            "gather-rows-early",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %pu = parameter {name="u"} : f32[12, 8] @u
                %u = embedding(%pu, %t) {dtype="f32"} : f32[T, 8] @in
                %r = input {name="logitRows"} : i32[O] @logitRows
                %i = mul(%x, %u) : f32[T, 8] @i
                %y = gatherRows(%i, %r) : f32[O, 8] @g
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = parameter {name="u"} : f32[12, 8] @u
                %4 = embedding(%3, %0) {dtype="f32"} : f32[T, 8] @in
                %5 = input {name="logitRows"} : i32[O] @logitRows
                %6 = gatherRows(%2, %5) : f32[O, 8] @g
                %7 = gatherRows(%4, %5) : f32[O, 8] @g
                %8 = mul(%6, %7) : f32[O, 8] @i
                return y=%8
                """#),
        RuleCase(
            "gather-rows-early",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %r = input {name="logitRows"} : i32[O] @logitRows
                %i = activation(%x) {kind="gelu"} : f32[T, 8] @i
                %y = gatherRows(%i, %r) : f32[O, 8] @g
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = input {name="logitRows"} : i32[O] @logitRows
                %4 = gatherRows(%2, %3) : f32[O, 8] @g
                %5 = activation(%4) {kind="gelu"} : f32[O, 8] @i
                return y=%5
                """#),
        RuleCase(
            "gather-rows-early",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %r = input {name="logitRows"} : i32[O] @logitRows
                %i = softCap(%x) {cap=2.0} : f32[T, 8] @i
                %y = gatherRows(%i, %r) : f32[O, 8] @g
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = input {name="logitRows"} : i32[O] @logitRows
                %4 = gatherRows(%2, %3) : f32[O, 8] @g
                %5 = softCap(%4) {cap=2.0} : f32[O, 8] @i
                return y=%5
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
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = input {name="logitRows"} : i32[O] @logitRows
                %4 = gatherRows(%2, %3) : f32[O, 8] @g
                %5 = scale(%4) {factor=0.5} : f32[O, 8] @i
                return y=%5
                """#),
        RuleCase(
            "gather-rows-early",
            before:
                #"""
                %t = input {name="tokens"} : i32[T] @tokens
                %px = parameter {name="x"} : f32[12, 8] @x
                %x = embedding(%px, %t) {dtype="f32"} : f32[T, 8] @in
                %r = input {name="logitRows"} : i32[O] @logitRows
                %i = cast(%x) {dtype="f16"} : f16[T, 8] @i
                %y = gatherRows(%i, %r) : f16[O, 8] @g
                return y=%y
                """#,
            after:
                #"""
                %0 = input {name="tokens"} : i32[T] @tokens
                %1 = parameter {name="x"} : f32[12, 8] @x
                %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 8] @in
                %3 = input {name="logitRows"} : i32[O] @logitRows
                %4 = gatherRows(%2, %3) : f32[O, 8] @g
                %5 = cast(%4) {dtype="f16"} : f16[O, 8] @i
                return y=%5
                """#),
    ]
}
