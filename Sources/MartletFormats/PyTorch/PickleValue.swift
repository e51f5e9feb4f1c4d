// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// The values of a checkpoint's pickle: flat, so that no nesting of input nests memory.
enum PickleValue {
    /// None, numbers and lists that no tensor needs.
    case other
    case integer(Int)
    case text(String)
    case callable(PickleImport)
    /// Elements of a tuple in the reader's list.
    case tuple(Range<Int>)
    /// Index of a dictionary.
    case dictionary(Int)
    /// Index of a storage.
    case storage(Int)
    /// Index of a tensor.
    case tensor(Int)
}

/// The names a checkpoint's pickle may import: a closed list.
enum PickleImport {
    case orderedDict
    case rebuildTensor
    case storage(DType)

    init?(module: String, name: String) {
        switch (module, name) {
        case ("collections", "OrderedDict"): self = .orderedDict
        case ("torch._utils", "_rebuild_tensor_v2"): self = .rebuildTensor
        case ("torch", _):
            guard let dtype = Self.storages[name] else { return nil }
            self = .storage(dtype)
        default: return nil
        }
    }

    private static let storages: [String: DType] = [
        "DoubleStorage": .f64, "FloatStorage": .f32, "HalfStorage": .f16, "BFloat16Storage": .bf16,
        "LongStorage": .i64, "IntStorage": .i32, "ShortStorage": .i16, "CharStorage": .i8,
        "ByteStorage": .u8, "BoolStorage": .bool,
    ]
}

/// A storage as the pickle names it: `data/<key>` beside the pickle.
struct PickleStorage {
    let key: String
    let dtype: DType
    /// Elements.
    let count: Int
}

/// A tensor: a strided window of a storage.
struct PickleTensor {
    let storage: PickleStorage
    /// First element in the storage.
    let offset: Int
    let shape: [Int]
    /// Elements between neighbours along each dimension.
    let strides: [Int]

    /// Elements; nil if the shape is no shape.
    var count: Int? { TensorData.elementCount(shape) }

    /// Whether elements follow each other in row-major order.
    var isContiguous: Bool {
        var expected = 1
        for (size, stride) in zip(shape, strides).reversed() where size != 1 {
            if stride != expected { return false }
            // A size of 0 may stand beside ones whose product no integer holds.
            expected &*= size
        }
        return true
    }

    /// The storage's elements from the first to the last; nil if they lie outside or overflow.
    var extent: Range<Int>? {
        guard let count, offset >= 0, strides.allSatisfy({ $0 >= 0 }) else { return nil }
        if count == 0 { return offset <= storage.count ? offset..<offset : nil }
        var last = offset
        for (size, stride) in zip(shape, strides) {
            let (step, overflow) = (size - 1).multipliedReportingOverflow(by: stride)
            let (sum, overflow2) = last.addingReportingOverflow(step)
            if overflow || overflow2 { return nil }
            last = sum
        }
        return last < storage.count ? offset..<last + 1 : nil
    }
}
