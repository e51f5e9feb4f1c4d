// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A count or an index in four bytes: what every step walks over should fit the core's nearest memory.
@propertyWrapper
package struct Compact: Sendable, Hashable {
    private var value: Int32

    /// The number; the limits of steps and requests keep it within four bytes.
    package var wrappedValue: Int {
        get { Int(value) }
        set { value = Int32(truncatingIfNeeded: newValue) }
    }

    /// Keeps a number.
    package init(wrappedValue: Int) { value = Int32(truncatingIfNeeded: wrappedValue) }
}
