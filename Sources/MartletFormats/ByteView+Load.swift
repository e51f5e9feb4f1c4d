// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension ByteView {
    /// A little-endian integer at an offset; nil if it does not lie inside.
    func load<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type, at offset: Int
    ) -> Value? {
        guard offset >= 0, offset <= count - MemoryLayout<Value>.size else { return nil }
        return withUnsafeBytes {
            Value(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: type))
        }
    }

    /// Whether the bytes begin with others.
    func starts(with other: [UInt8]) -> Bool {
        withUnsafeBytes { $0.prefix(other.count).elementsEqual(other) }
    }

    /// This view, or a copy where its first byte is not at a multiple of `alignment`.
    ///
    /// Files may place tensors at any byte; kernels that pack weights read whole elements.
    func aligned(to alignment: Int) -> ByteView {
        let isAligned = withUnsafeBytes { UInt(bitPattern: $0.baseAddress) % UInt(alignment) == 0 }
        return isAligned ? self : withUnsafeBytes { ByteView(copying: $0) }
    }
}
