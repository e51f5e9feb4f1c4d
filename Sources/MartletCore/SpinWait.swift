// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Waiting for another thread or a device without sleeping: the core keeps its caches.
package enum SpinWait {
    /// Looks until a condition holds or time is up.
    ///
    /// Between two looks whoever else wants the core may have it. A loop of loads alone slows the thread that shares the core's
    /// units: a step's host work takes 24 to 45 us beside one, 12 to 16 beside this (`CUDAOptions.spinDuration`).
    ///
    /// - Returns: Whether it holds.
    @inline(__always)
    package static func look(for duration: Duration, _ condition: () -> Bool) -> Bool {
        let end = ContinuousClock.now + duration
        repeat {
            if condition() { return true }
            sched_yield()
        } while ContinuousClock.now < end
        return condition()
    }
}
