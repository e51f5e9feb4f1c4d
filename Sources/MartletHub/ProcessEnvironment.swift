// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
@preconcurrency import Glibc
#elseif canImport(Musl)
@preconcurrency import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// The variables of this process.
package enum ProcessEnvironment {
    /// A copy of all variables; the first of two equal names wins.
    package static func current() -> [String: String] {
        var values: [String: String] = [:]
        #if canImport(Darwin)
        var cursor = _NSGetEnviron().pointee
        #else
        var cursor: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?> = environ
        #endif
        while let line = cursor.pointee {
            let text = String(cString: line)
            if let equals = text.firstIndex(of: "="), equals != text.startIndex {
                let name = String(text[..<equals])
                if values[name] == nil { values[name] = String(text[text.index(after: equals)...]) }
            }
            cursor += 1
        }
        return values
    }
}
