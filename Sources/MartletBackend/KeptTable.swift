// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// What lies in the memory of a step record's block table from the step before.
struct KeptTable {
    /// What the writer called the rows, 0 where it is not known what lies there.
    var stamps: [UInt64]
    private var step: UInt64 = 0
    private var (offset, columns, requests) = (0, 0, 0)

    init(requests: Int) { stamps = [UInt64](repeating: 0, count: requests) }

    /// Forgets rows that do not lie where the step before had them, or that others were written over.
    ///
    /// - Parameters:
    ///   - step: One more for each step that the record is begun with.
    ///   - offset: Where the table begins, bytes from the record's start.
    mutating func renew(step: UInt64, offset: Int, columns: Int, requests: Int) {
        let isSame =
            self.step + 1 == step && self.offset == offset && self.columns == columns
        let known = isSame ? min(self.requests, requests) : 0
        for row in known..<min(requests, stamps.count) { stamps[row] = 0 }
        while stamps.count < requests { stamps.append(0) }
        (self.step, self.offset, self.columns, self.requests) = (step, offset, columns, requests)
    }
}
