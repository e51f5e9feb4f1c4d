// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Measuring in a process that finds its engine built, as later runs do: what a build leaves in the heap is no
/// memory of theirs.
enum FreshProcess {
    private static let variable = "MARTLET_BENCH_BUILD_SECONDS"

    /// What the process before this one took to build the engine; nil if there was none.
    static var buildSeconds: Double? {
        getenv(variable).flatMap { Double(String(cString: $0)) }.flatMap {
            $0.isFinite && $0 >= 0 ? $0 : nil
        }
    }

    /// Begins this program anew with the same arguments; returns only where that cannot be, or was done before.
    static func begin(buildSeconds: Double) {
        guard self.buildSeconds == nil else { return }
        setenv(variable, "\(buildSeconds)", 1)
        let words = CommandLine.arguments.map { strdup($0) } + [nil]
        execv(BenchComparison.program, words)
        unsetenv(variable)
        for word in words { free(word) }
    }
}
