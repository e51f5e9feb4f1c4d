// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// What happens during a pull, in order.
public enum PullEvent: Sendable {
    /// A source was chosen; the text names it.
    case source(String)
    /// A source failed and the next one is tried.
    case fallback(source: String, reason: String)
    /// Another process pulls the same file; this one waits for it.
    case waiting(String)
    /// A request failed and is repeated after a delay.
    case retry(repetition: Int, limit: Int, delayMilliseconds: Int, reason: String)
    /// Bytes arrived.
    case progress(TransferProgress)
    /// All bytes are here; they are flushed and their hash is compared.
    case verifying
    /// The model is in its place.
    case done(PulledModel)
}

/// Takes the events of a pull; called from any thread, one call at a time.
public typealias PullObserver = @Sendable (PullEvent) -> Void

/// How far a transfer is.
public struct TransferProgress: Sendable, Hashable {
    /// Bytes on disk, those of earlier runs included.
    public var byteCount: Int
    /// Bytes there will be, if known.
    public var totalByteCount: Int?
    /// Bytes a second over the last seconds; 0 before there is a measure.
    public var bytesPerSecond: Double
    /// Seconds left at that rate, if total and rate are known.
    public var secondsLeft: Double?

    /// Describes a transfer.
    public init(
        byteCount: Int, totalByteCount: Int?, bytesPerSecond: Double, secondsLeft: Double?
    ) {
        self.byteCount = byteCount
        self.totalByteCount = totalByteCount
        self.bytesPerSecond = bytesPerSecond
        self.secondsLeft = secondsLeft
    }
}

/// A model that is in the cache now.
public struct PulledModel: Sendable, Hashable {
    /// Path of the file on this machine.
    public let path: String
    /// Where it came from, in words, such as `hub QuantFactory/...` or `cache`.
    public let source: String
    /// Length in bytes.
    public let byteCount: Int
    /// SHA-256 in hexadecimal; nil where a cached file was taken without reading it.
    public let sha256: String?
}
