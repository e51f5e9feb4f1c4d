// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Counts of bytes as people type them.
public enum ByteCount {
    /// Reads a count such as `512`, `64k`, `2GB` or `1GiB`; nil for other text.
    public static func parse(_ text: String) -> Int? {
        let digits = text.prefix { $0.isNumber || $0 == "." }
        guard let value = Double(digits), value >= 0 else { return nil }
        let factors = [
            "": 1.0, "b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9,
            "t": 1e12, "tb": 1e12, "kib": 1024, "mib": 1_048_576, "gib": 1_073_741_824,
            "tib": 1_099_511_627_776,
        ]
        guard let factor = factors[text.dropFirst(digits.count).lowercased()] else { return nil }
        let result = value * factor
        return result < 1e18 ? Int(result) : nil
    }
}
