// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif
import CMartletMicrokernels
import MartletCore
import Synchronization

/// Measures what this machine can do at most, with all threads at once: the ceilings of `bench`.
package final class CPUProbe: Sendable {
    private let team: ThreadTeam
    private let kernels: KernelTable

    /// Starts threads.
    ///
    /// - Parameters:
    ///   - threadCount: Threads; nil for one per available physical core.
    ///   - instructionSet: Kernels to measure; nil for the best.
    /// - Throws: `MartletError` `.unsupported` if this CPU cannot run the kernels.
    package init(threadCount: Int? = nil, instructionSet: CPUInstructionSet? = nil) throws {
        team = ThreadTeam(threads: threadCount)
        kernels = KernelTable(try (instructionSet ?? .best).kernels())
    }

    /// Threads that measure.
    package var threadCount: Int { team.count }

    /// Bytes per second that all threads read together, each its own contiguous part.
    ///
    /// - Parameters:
    ///   - byteCount: Memory read per pass; beyond the caches for DRAM.
    ///   - passes: Passes; the best one counts.
    package func readBandwidth(byteCount: Int = 256 << 20, passes: Int = 5) throws -> Double {
        let memory = try touched(byteCount)
        let kernels = kernels
        return best(passes, of: Double(memory.count)) { worker in
            let part = worker.share(of: memory.count, unit: 4096)
            // The sum is kept so that the loads are.
            sink.store(
                kernels.pointer.pointee.probe_read(memory.base + part.lowerBound, part.count),
                ordering: .relaxed)
        }
    }

    /// Bytes per second of a copy, read and written bytes counted.
    package func copyBandwidth(byteCount: Int = 128 << 20, passes: Int = 5) throws -> Double {
        let source = try touched(byteCount)
        let target = try touched(byteCount)
        return best(passes, of: 2 * Double(source.count)) { worker in
            let part = worker.share(of: source.count, unit: 4096)
            memcpy(target.base + part.lowerBound, source.base + part.lowerBound, part.count)
        }
    }

    /// Operations per second of the densest int8 dot product loop (2 per multiply-add).
    package func int8Peak(iterations: Int = 20_000_000, passes: Int = 3) -> Double {
        let kernels = kernels
        return peak(passes) { kernels.pointer.pointee.probe_int8(iterations) }
    }

    /// Operations per second of the densest f32 FMA loop (2 per multiply-add).
    package func floatPeak(iterations: Int = 20_000_000, passes: Int = 3) -> Double {
        let kernels = kernels
        return peak(passes) { kernels.pointer.pointee.probe_f32(iterations) }
    }

    private func peak(_ passes: Int, _ body: @escaping @Sendable () -> Double) -> Double {
        var best = 0.0
        let clock = ContinuousClock()
        for _ in 0..<max(passes, 1) {
            let done = Mutex(0.0)
            let start = clock.now
            team.run { _, _ in
                let operations = body()
                done.withLock { $0 += operations }
            }
            best = max(best, done.withLock { $0 } / seconds(clock.now - start))
        }
        return best
    }

    private func best(
        _ passes: Int, of amount: Double, _ body: @Sendable (Worker) -> Void
    ) -> Double {
        var best = 0.0
        let clock = ContinuousClock()
        for _ in 0..<max(passes, 1) {
            let start = clock.now
            team.run { index, count in body(Worker(index: index, count: count)) }
            best = max(best, amount / seconds(clock.now - start))
        }
        return best
    }

    private func seconds(_ duration: Duration) -> Double {
        let parts = duration.components
        return max(Double(parts.seconds) + Double(parts.attoseconds) * 1e-18, 1e-9)
    }

    private func touched(_ byteCount: Int) throws -> MappedArena {
        guard byteCount > 0 else {
            throw MartletError(.invalidArgument, "a probe of \(byteCount) bytes measures nothing")
        }
        let memory = try MappedArena(count: byteCount, purpose: "a bandwidth probe")
        team.run { index, count in
            let part = Worker(index: index, count: count).share(of: memory.count, unit: 4096)
            memset(memory.base + part.lowerBound, 1, part.count)
        }
        return memory
    }
}

/// Where probes leave results, so that nothing is optimized away.
private let sink = Atomic<UInt64>(0)
