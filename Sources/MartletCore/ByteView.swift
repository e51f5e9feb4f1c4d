// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// A reference-counted, immutable view of bytes: a part of a mapped file or of an owned buffer.
///
/// Copying a view copies no bytes. The owner lives as long as any view of it.
public struct ByteView: Sendable {
    /// The memory behind the view.
    let storage: ByteStorage
    /// Where the view starts in its storage, in bytes.
    let offset: Int
    /// Length in bytes.
    public let count: Int

    init(storage: ByteStorage, offset: Int, count: Int) {
        self.storage = storage
        self.offset = offset
        self.count = count
    }

    /// An empty view.
    public init() { self.init(storage: ByteStorage.empty, offset: 0, count: 0) }

    /// Copies bytes into owned memory (64-byte aligned).
    public init(copying bytes: UnsafeRawBufferPointer) {
        self.init(count: bytes.count) { $0.copyMemory(from: bytes) }
    }

    /// Copies an array of trivial values, in native byte order.
    public init<Element: BitwiseCopyable>(_ elements: [Element]) {
        self = elements.withUnsafeBytes { ByteView(copying: $0) }
    }

    /// Allocates owned memory (64-byte aligned, zeroed) and lets the closure fill it.
    ///
    /// - Parameters:
    ///   - count: Bytes to allocate.
    ///   - fill: Writes the content; called once.
    /// - Throws: What the closure throws.
    public init(count: Int, fill: (UnsafeMutableRawBufferPointer) throws -> Void) rethrows {
        let storage = ByteStorage(allocating: count)
        try fill(UnsafeMutableRawBufferPointer(start: storage.base, count: count))
        self.init(storage: storage, offset: 0, count: count)
    }

    /// A part of this view; nil if the range does not lie inside.
    public func slice(_ start: Int, count length: Int) -> ByteView? {
        guard start >= 0, length >= 0, start <= count, length <= count - start else { return nil }
        return ByteView(storage: storage, offset: offset + start, count: length)
    }

    /// Calls the closure with the bytes; the pointer must not leave it.
    @inline(__always)
    public func withUnsafeBytes<Result>(
        _ body: (UnsafeRawBufferPointer) throws -> Result
    ) rethrows -> Result {
        try withExtendedLifetime(storage) {
            try body(
                UnsafeRawBufferPointer(start: UnsafeRawPointer(storage.base) + offset, count: count)
            )
        }
    }

    /// Address of the first byte, valid while the view is kept alive by its user.
    ///
    /// For executors that hold the view for as long as they use the address.
    package var unsafeBaseAddress: UnsafeRawPointer { UnsafeRawPointer(storage.base) + offset }

    /// The elements, copied into an array; a tail shorter than one element is dropped.
    public func array<Element: BitwiseCopyable>(of type: Element.Type) -> [Element] {
        withUnsafeBytes { bytes in
            let length = bytes.count / MemoryLayout<Element>.stride
            return (0..<length).map {
                bytes.loadUnaligned(fromByteOffset: $0 * MemoryLayout<Element>.stride, as: type)
            }
        }
    }

    /// Whether both views hold the same bytes.
    public func hasSameBytes(as other: ByteView) -> Bool {
        guard count == other.count else { return false }
        return withUnsafeBytes { a in other.withUnsafeBytes { b in a.elementsEqual(b) } }
    }
}

/// Owner of the memory behind views.
///
/// `@unchecked Sendable`: the bytes are written only before the first view is handed out.
final class ByteStorage: @unchecked Sendable {
    let base: UnsafeMutableRawPointer
    private let release: (UnsafeMutableRawPointer) -> Void

    static let empty = ByteStorage(allocating: 0)

    /// From this size on memory comes from the system directly.
    private static let mappedByteCount = 1 << 20

    init(base: UnsafeMutableRawPointer, release: @escaping (UnsafeMutableRawPointer) -> Void) {
        self.base = base
        self.release = release
    }

    convenience init(allocating count: Int) {
        if count >= Self.mappedByteCount,
            let memory = mmap(
                nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            memory != MAP_FAILED
        {
            // Zeroed by the system, and given back to it at once.
            self.init(base: memory) { _ = munmap($0, count) }
            return
        }
        let memory = UnsafeMutableRawPointer.allocate(byteCount: max(count, 1), alignment: 64)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: max(count, 1))
        self.init(base: memory) { $0.deallocate() }
    }

    deinit { release(base) }
}
