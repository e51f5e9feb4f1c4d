// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// The C library's power function under one name on every platform.
enum Power {
    static func power(_ base: Double, _ exponent: Double) -> Double { pow(base, exponent) }
}
