// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A PyTorch checkpoint (`pytorch_model.bin`), memory-mapped; tensors are views of it.
///
/// A zip file whose members are stored as they are: `<any>/data.pkl`, read by `PickleReader`, and one
/// `<any>/data/<key>` for each storage. Tensors whose elements are not in row-major order are copied
/// when they are asked for.
package struct PyTorchFile: CheckpointSource {
    private let tensors: [String: PickleTensor]
    private let storages: [String: ByteView]

    /// Largest pickle that is read, in bytes.
    static let pickleLimit = 16 << 20
    /// What files of PyTorch before 1.6 begin with.
    private static let oldMagic: [UInt8] = [
        0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
    ]

    /// Opens a file.
    ///
    /// - Throws: `MartletError` `.corrupt`, `.unsupported`, `.notFound` or `.io`, naming the file.
    package init(path: String) throws {
        do {
            try self.init(bytes: MappedFile.map(path))
        } catch let error as MartletError {
            throw error.reading(path)
        }
    }

    /// Reads a file's bytes.
    ///
    /// - Throws: `MartletError` `.corrupt` for damage, `.unsupported` for anything but tensors.
    package init(bytes: ByteView) throws {
        try GitLFSPointer.refuse(bytes)
        if bytes.starts(with: Self.oldMagic) {
            throw MartletError(
                .unsupported, "a checkpoint in the format of PyTorch before 1.6",
                mend: "Load it in PyTorch and save it again with torch.save")
        }
        guard bytes.starts(with: [0x50, 0x4b]) else {
            throw MartletError(.corrupt, "no PyTorch checkpoint: it is not a zip file")
        }
        let members = try ZipDirectory(bytes).members
        let pickles = members.keys.filter { $0.hasSuffix("/data.pkl") || $0 == "data.pkl" }
        guard let name = pickles.first, pickles.count == 1, let pickle = members[name] else {
            throw MartletError(
                .corrupt, "no PyTorch checkpoint: \(pickles.count) members are named data.pkl")
        }
        guard pickle.count <= Self.pickleLimit else {
            throw MartletError(
                .unsupported,
                "\(name) has \(pickle.count) bytes, at most \(Self.pickleLimit) are read")
        }
        let prefix = name.dropLast("data.pkl".count)
        if let order = members[prefix + "byteorder"], !order.starts(with: Array("little".utf8)) {
            throw MartletError(
                .unsupported, "a checkpoint written on a big-endian machine",
                mend: "Save it again on a little-endian machine")
        }
        tensors = try PickleReader.tensors(of: pickle)
        var storages: [String: ByteView] = [:]
        for (name, tensor) in tensors {
            let key = tensor.storage.key
            guard let content = members["\(prefix)data/\(key)"] else {
                throw MartletError(
                    .corrupt, "tensor '\(name)' names storage '\(key)', which is missing")
            }
            storages[key] = content
            try Self.check(name, tensor, content)
        }
        self.storages = storages
        try Self.checkSharing(tensors, storages)
    }

    /// Refuses many tensors of few bytes: what is read must stay in proportion to the file.
    ///
    /// Tied embeddings share a storage rightly, three or four names of one at most.
    private static func checkSharing(
        _ tensors: [String: PickleTensor], _ storages: [String: ByteView]
    ) throws {
        let stored = storages.values.reduce(0) { $0 + $1.count }
        var named = 0
        for tensor in tensors.values {
            // Each is at most as large as its storage.
            named += (tensor.count ?? 0) * tensor.storage.dtype.byteCount
            guard named <= 2 * stored + 64 << 20 else {
                throw MartletError(
                    .unsupported,
                    "\(tensors.count) tensors share \(storages.count) storages of \(stored) bytes "
                        + "and stand for more than twice as many",
                    mend: "Clone the tensors before saving them")
            }
        }
    }

    private static func check(_ name: String, _ tensor: PickleTensor, _ content: ByteView) throws {
        let (needed, overflow) = tensor.storage.count.multipliedReportingOverflow(
            by: tensor.storage.dtype.byteCount)
        guard !overflow, needed <= content.count else {
            throw MartletError(
                .corrupt,
                "tensor '\(name)': its storage has \(content.count) bytes, not those of "
                    + "\(tensor.storage.count) \(tensor.storage.dtype.rawValue)",
                mend: "The file may be cut short: fetch it again")
        }
        guard let count = tensor.count, tensor.extent != nil else {
            throw MartletError(
                .corrupt,
                "tensor '\(name)' of shape \(tensor.shape), strides \(tensor.strides), offset "
                    + "\(tensor.offset) exceeds its storage of \(tensor.storage.count)")
        }
        // A few bytes could stand for any amount of memory otherwise.
        guard count <= tensor.storage.count else {
            throw MartletError(
                .unsupported,
                "tensor '\(name)' of shape \(tensor.shape) repeats the \(tensor.storage.count) "
                    + "elements of its storage",
                mend: "Save it with .contiguous()")
        }
    }

    package var names: [String] { tensors.keys.sorted() }
    package func contains(_ name: String) -> Bool { tensors[name] != nil }
    package func shape(of name: String) throws -> [Int] { try tensor(name).shape }
    package func storage(of name: String) throws -> ElementFormat {
        .plain(try tensor(name).storage.dtype)
    }

    package func weight(_ name: String) throws -> WeightValue {
        let tensor = try tensor(name)
        let dtype = tensor.storage.dtype
        let size = dtype.byteCount
        guard let content = storages[tensor.storage.key], let extent = tensor.extent,
            let window = content.slice(extent.lowerBound * size, count: extent.count * size)
        else { throw MartletError(.corrupt, "tensor '\(name)' lies outside its storage") }
        let bytes =
            tensor.isContiguous
            ? window.aligned(to: size) : Self.gathered(tensor, window, elementSize: size)
        return .plain(try TensorData(dtype: dtype, shape: tensor.shape, bytes: bytes))
    }

    /// Elements in row-major order.
    private static func gathered(
        _ tensor: PickleTensor, _ window: ByteView, elementSize size: Int
    ) -> ByteView {
        let count = tensor.count ?? 0
        return ByteView(count: count * size) { target in
            window.withUnsafeBytes { source in
                guard let from = source.baseAddress, let to = target.baseAddress else { return }
                var index = [Int](repeating: 0, count: tensor.shape.count)
                var place = 0
                for element in 0..<count {
                    (to + element * size).copyMemory(from: from + place * size, byteCount: size)
                    // Counts like an odometer, innermost first.
                    for axis in tensor.shape.indices.reversed() {
                        index[axis] += 1
                        // The stride of a dimension of 1 may be any number.
                        place &+= tensor.strides[axis]
                        if index[axis] < tensor.shape[axis] { break }
                        place &-= tensor.strides[axis] &* tensor.shape[axis]
                        index[axis] = 0
                    }
                }
            }
        }
    }

    private func tensor(_ name: String) throws -> PickleTensor {
        guard let tensor = tensors[name] else {
            throw MartletError.missingTensor(name)
        }
        return tensor
    }
}
