// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletEngineFile

/// A parameter on its way into an engine, packed piece by piece.
struct PackedParameter {
    /// What it is in the plan.
    let parameter: PlanParameter
    /// Its bytes in all; nil if only the pieces tell.
    let byteCount: Int?
    let make: ((ByteView) throws -> Void) throws -> Void

    init(
        parameter: PlanParameter, byteCount: Int?,
        make: @escaping ((ByteView) throws -> Void) throws -> Void
    ) {
        self.parameter = parameter
        self.byteCount = byteCount
        self.make = make
    }

    /// Calls the closure with the packed bytes, piece after piece.
    func forEachPiece(_ body: (ByteView) throws -> Void) throws { try make(body) }

    /// The packed bytes in memory of their own.
    ///
    /// - Throws: What making them throws; `.internalError` if they are not as many as announced.
    func bytes() throws -> ByteView {
        guard let byteCount else {
            var pieces: [ByteView] = []
            try forEachPiece { pieces.append($0) }
            return ByteView(joining: pieces)
        }
        return try ByteView(count: byteCount) { target in
            var offset = 0
            try forEachPiece { piece in
                try piece.withUnsafeBytes { source in
                    guard source.count <= target.count - offset else {
                        throw mismatch(offset + source.count)
                    }
                    UnsafeMutableRawBufferPointer(rebasing: target[offset...]).copyMemory(
                        from: source)
                    offset += source.count
                }
            }
            guard offset == byteCount else { throw mismatch(offset) }
        }
    }

    private func mismatch(_ count: Int) -> MartletError {
        MartletError(
            .internalError,
            "parameter '\(parameter.name)' was packed to \(count) bytes, not \(byteCount ?? 0)")
    }
}
