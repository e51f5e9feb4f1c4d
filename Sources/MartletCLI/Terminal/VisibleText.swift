// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension String {
    /// The text with control characters spelled out, so that what files and servers say stays on one line and
    /// cannot steer the terminal.
    var visible: String {
        guard unicodeScalars.contains(where: { $0.properties.generalCategory == .control }) else {
            return self
        }
        var result = ""
        for scalar in unicodeScalars {
            switch scalar {
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            case _ where scalar.properties.generalCategory == .control:
                result += "\\u{" + String(scalar.value, radix: 16) + "}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
