// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Brings a step's inputs to the device and its results back.
///
/// By a kernel, which begins when the one in front ends; a copy by the driver waits for its engine on both sides. What is
/// large or no whole words is left to the driver. Belongs to the submitting side.
final class StepCopier {
    private enum Direction {
        case toDevice, toHost
    }

    private struct Piece {
        let device: UInt64
        let host: UnsafeMutableRawPointer
        let byteCount: Int
        let direction: Direction

        /// `CopyPiece`.
        var words: (from: UInt64, to: UInt64, count: Int) {
            let host = UInt64(UInt(bitPattern: host))
            let isInput = direction == .toDevice
            return (isInput ? host : device, isInput ? device : host, byteCount / 4)
        }
        var isWords: Bool {
            (device | UInt64(UInt(bitPattern: host)) | UInt64(byteCount)) % 4 == 0
        }
    }

    /// The kernel; its arguments are those of each step.
    static let launch = KernelLaunch(
        module: KernelModule("plain/copy.cu", [:]), kernel: "copy_plain",
        arguments: noPieces, block: 256
    ) { _ in (8, 1, 1) }

    private static let pieceLimit = 8
    private static let noPieces = {
        var arguments = ArgumentBytes()
        for _ in 0..<1 + 3 * pieceLimit + 1 { arguments.add(Int64(0)) }
        return arguments
    }()
    /// Bytes up to which the kernel copies: more of them go faster by an engine.
    private static let byteLimit = 256 << 10

    private let kernel: LoadedKernel
    /// `CopyArguments`: how many pieces, and where and how long each is.
    private let arguments: UnsafeMutableRawPointer
    private var pieces: [Piece] = []

    init(_ kernel: LoadedKernel) {
        self.kernel = kernel
        arguments = .allocate(byteCount: Self.noPieces.padded.count, alignment: 8)
        pieces.reserveCapacity(Self.pieceLimit)
    }

    deinit { arguments.deallocate() }

    /// Will copy bytes to the device.
    func bring(_ byteCount: Int, from host: UnsafeMutableRawPointer, to device: UInt64) {
        add(Piece(device: device, host: host, byteCount: byteCount, direction: .toDevice))
    }

    /// Will copy bytes to the host.
    func fetch(_ byteCount: Int, from device: UInt64, to host: UnsafeMutableRawPointer) {
        add(Piece(device: device, host: host, byteCount: byteCount, direction: .toHost))
    }

    private func add(_ piece: Piece) {
        if piece.byteCount > 0 { pieces.append(piece) }
    }

    /// Forgets what a step that failed did not copy.
    func begin() { pieces.removeAll(keepingCapacity: true) }

    var isEmpty: Bool { pieces.isEmpty }

    /// Enqueues the copies.
    ///
    /// - Parameter stamp: Page-locked memory for the GPU's time, in nanoseconds, once all in front has ended.
    /// - Returns: How many kernels do so.
    func run(
        on stream: borrowing CUDAStream, stamp: UnsafeMutablePointer<UInt64>? = nil
    ) throws(MartletError) -> Int {
        defer { pieces.removeAll(keepingCapacity: true) }
        let total = pieces.reduce(0) { $0 + $1.byteCount }
        guard pieces.count <= Self.pieceLimit, total <= Self.byteLimit,
            pieces.allSatisfy(\.isWords)
        else {
            let count = stamp == nil ? 0 : try start([], stamp, on: stream)
            try runByDriver(on: stream)
            return count
        }
        return pieces.isEmpty && stamp == nil ? 0 : try start(pieces, stamp, on: stream)
    }

    /// Starts the kernel.
    private func start(
        _ pieces: [Piece], _ stamp: UnsafeMutablePointer<UInt64>?, on stream: borrowing CUDAStream
    ) throws(MartletError) -> Int {
        arguments.storeBytes(of: pieces.count, as: Int.self)
        for (index, piece) in pieces.enumerated() {
            let place = arguments + 8 + index * 24
            place.storeBytes(of: piece.words.from, as: UInt64.self)
            place.storeBytes(of: piece.words.to, toByteOffset: 8, as: UInt64.self)
            place.storeBytes(of: piece.words.count, toByteOffset: 16, as: Int.self)
        }
        arguments.storeBytes(
            of: UInt(bitPattern: stamp), toByteOffset: 8 + Self.pieceLimit * 24, as: UInt.self)
        let none = Dimension.Values(tokens: 0, requests: 0, logitRows: 0, context: 0)
        try DevicePlan.start(
            Self.launch, kernel, arguments, none, on: stream, isDependent: false, path: "")
        return 1
    }

    private func runByDriver(on stream: borrowing CUDAStream) throws(MartletError) {
        for piece in pieces {
            switch piece.direction {
            case .toDevice:
                try stream.copy(to: piece.device, from: piece.host, count: piece.byteCount)
            case .toHost:
                try stream.copy(to: piece.host, from: piece.device, count: piece.byteCount)
            }
        }
    }
}
