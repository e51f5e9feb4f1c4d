// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// What a load left behind: nothing, if all is well.
struct LoadAftermath {
    /// What the system holds for this process.
    struct Holdings {
        let residentBytes = ProcessMemory.residentBytes
        let descriptorCount = OpenFiles.count
    }

    let before: Holdings
    let after: Holdings
    /// Pages of the KV arena, and those of them that are free.
    let pageCount: Int, freePageCount: Int
    /// Answered requests that were run again alone, and those of them whose answer was another one then.
    let repeatedCount: Int, unlikeCount: Int
    /// Why not all of them were run again.
    private let failure: (any Error)?

    /// Waits until the engine has seen all cancellations, then looks, and runs answered requests alone.
    ///
    /// - Parameters:
    ///   - before: What was held before the load.
    ///   - records: Of the plan's requests; with tokens where they are to be compared.
    ///   - stop: Ends the comparison early.
    init(
        _ model: LanguageModel, _ plan: LoadPlan, _ records: [LoadRecord], before: Holdings,
        _ stop: LoadStop
    ) {
        let clock = ContinuousClock()
        let end = clock.now + .seconds(10)
        while model.statistics.freePageCount < model.statistics.pageCount, clock.now < end {
            usleep(2000)
        }
        self.before = before
        after = Holdings()
        (pageCount, freePageCount) = (model.statistics.pageCount, model.statistics.freePageCount)
        var counts = (repeated: 0, unlike: 0)
        var failure: (any Error)?
        do {
            for record in records where plan.keepsTokens && !record.hasFailed && !record.isCancelled
            {
                if stop.isRequested { break }
                var request = plan.entries[record.index].request
                // Alone, not on blocks that the load has computed.
                request.cacheSalt = "alone \(record.index)"
                let alone = try model.generateBatch([request])[0]
                if let failure = alone.failure { throw failure }
                counts.repeated += 1
                counts.unlike += alone.tokens == record.tokens ? 0 : 1
            }
        } catch { failure = error }
        (repeatedCount, unlikeCount) = counts
        self.failure = failure
    }

    /// Fails where pages are lost, an answer depended on what ran beside it, or a request failed alone.
    func check() throws {
        if let failure { throw failure }
        guard freePageCount == pageCount else {
            throw MartletError(
                .checkFailed, "\(pageCount - freePageCount) of \(pageCount) blocks are not free",
                mend: "Please report it with the command")
        }
        guard unlikeCount == 0 else {
            throw MartletError(
                .checkFailed,
                "\(unlikeCount) of \(repeatedCount) answers are others than the same requests' alone",
                mend: "On a GPU add --deterministic")
        }
    }
}
