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
    /// One file of several is in its place.
    case file(String, byteCount: Int)
    /// The model is in its place.
    case done(PulledModel)
}

/// Takes the events of a pull; called from any thread.
public typealias PullObserver = @Sendable (PullEvent) -> Void

/// How far the transfers of a pull are, all files together.
public struct TransferProgress: Sendable, Hashable {
    /// Bytes on disk, those of earlier runs included.
    public var byteCount: Int
    /// Bytes there will be, if known.
    public var totalByteCount: Int?
    /// Bytes a second over the last seconds; 0 before there is a measure.
    public var bytesPerSecond = 0.0
    /// Seconds left at that rate, if total and rate are known.
    public var secondsLeft: Double?
    /// Files that are in their place.
    public var finishedFileCount = 0
    /// Files there will be.
    public var fileCount: Int

    /// Describes transfers.
    public init(byteCount: Int, totalByteCount: Int?, fileCount: Int = 1) {
        self.byteCount = byteCount
        self.totalByteCount = totalByteCount
        self.fileCount = fileCount
    }
}

/// A model that is in the cache now.
public struct PulledModel: Sendable, Hashable {
    /// Path of the file, or of the folder of files, on this machine.
    public let path: String
    /// Where it came from, in words, such as `hub QuantFactory/...` or `cache`.
    public let source: String
    /// Length in bytes, all files together.
    public let byteCount: Int
    /// SHA-256 in hexadecimal; nil for several files, and for a cached one taken without reading it.
    public let sha256: String?
}
