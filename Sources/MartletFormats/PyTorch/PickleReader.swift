// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Reads the tensors of a checkpoint's pickle and nothing else.
///
/// A closed list of opcodes and of imports: what `torch.save` writes for dictionaries of tensors with
/// protocols 2 to 4. Nothing is ever called; an import outside the list is refused by its name.
struct PickleReader {
    /// Most values held at once: with the sizes of values here, below 16 MB.
    static let valueLimit = 100_000

    private let bytes: ByteView
    private var position = 0
    private var stack: [PickleValue] = []
    private var marks: [Int] = []
    private var memo: [Int: PickleValue] = [:]
    private var tuples: [PickleValue] = []
    private var dictionaries: [[String: PickleValue]] = []
    private var storages: [PickleStorage] = []
    private var tensors: [PickleTensor] = []
    private var entryCount = 0

    /// The tensors of the dictionary that a pickle holds, by name.
    ///
    /// - Throws: `MartletError` `.corrupt` for damage, `.unsupported` for anything but tensors.
    static func tensors(of bytes: ByteView) throws -> [String: PickleTensor] {
        var reader = PickleReader(bytes: bytes)
        return try reader.run()
    }

    private init(bytes: ByteView) { self.bytes = bytes }

    private mutating func run() throws -> [String: PickleTensor] {
        while true {
            let opcode = try read(UInt8.self)
            if opcode == UInt8(ascii: ".") { break }
            try step(opcode)
            let held = stack.count + marks.count + memo.count + tuples.count + entryCount
            guard held <= Self.valueLimit else {
                throw failure("more than \(Self.valueLimit) values")
            }
        }
        guard case .dictionary(let index) = stack.last else {
            throw MartletError(
                .unsupported, "the pickle holds no dictionary of tensors",
                mend: "Save model.state_dict(), not the model")
        }
        var result: [String: PickleTensor] = [:]
        var nested: String?
        for (name, value) in dictionaries[index] {
            switch value {
            case .tensor(let tensor): result[name] = tensors[tensor]
            case .dictionary: nested = min(nested ?? name, name)
            default: break
            }
        }
        if result.isEmpty, let nested {
            throw MartletError(
                .unsupported, "the pickle holds no tensors, but a dictionary '\(nested)' within",
                mend: "Save that dictionary alone with torch.save")
        }
        return result
    }

    // MARK: Opcodes

    private mutating func step(_ opcode: UInt8) throws {
        switch opcode {
        case 0x80:  // PROTO
            let version = try read(UInt8.self)
            guard (2...4).contains(version) else {
                throw failure("protocol \(version) is not read, 2 to 4 are", .unsupported)
            }
        case 0x95: _ = try read(UInt64.self)  // FRAME
        case UInt8(ascii: "("): marks.append(stack.count)
        case UInt8(ascii: ")"): stack.append(.tuple(0..<0))
        case UInt8(ascii: "t"): try pushTuple(try popToMark())
        case 0x85...0x87:  // TUPLE1 ... TUPLE3
            let count = Int(opcode) - 0x84
            let items = try (0..<count).map { _ in try pop() }
            try pushTuple(items.reversed())
        case UInt8(ascii: "}"): pushDictionary()
        case UInt8(ascii: "]"): stack.append(.other)
        case UInt8(ascii: "a"): _ = try pop()
        case UInt8(ascii: "e"): _ = try popToMark()
        case UInt8(ascii: "s"):
            let value = try pop()
            try set([try pop(), value])
        case UInt8(ascii: "u"): try set(try popToMark())
        case UInt8(ascii: "N"), 0x88, 0x89: stack.append(.other)  // None, true, false
        case UInt8(ascii: "G"):
            _ = try read(UInt64.self)
            stack.append(.other)
        case UInt8(ascii: "J"): stack.append(.integer(Int(try read(Int32.self))))
        case UInt8(ascii: "K"): stack.append(.integer(Int(try read(UInt8.self))))
        case UInt8(ascii: "M"): stack.append(.integer(Int(try read(UInt16.self))))
        case 0x8a: stack.append(.integer(try readLong()))
        case UInt8(ascii: "X"): stack.append(.text(try text(Int(try read(UInt32.self)))))
        case 0x8c: stack.append(.text(try text(Int(try read(UInt8.self)))))
        case UInt8(ascii: "c"):
            let module = try line()
            stack.append(.callable(try Self.allowed(module, try line())))
        case 0x93:  // STACK_GLOBAL
            guard case .text(let name) = try pop(), case .text(let module) = try pop() else {
                throw failure("an import without a name")
            }
            stack.append(.callable(try Self.allowed(module, name)))
        case UInt8(ascii: "q"): memo[Int(try read(UInt8.self))] = try top()
        case UInt8(ascii: "r"): memo[Int(try read(UInt32.self))] = try top()
        case 0x94: memo[memo.count] = try top()  // MEMOIZE
        case UInt8(ascii: "h"): try recall(Int(try read(UInt8.self)))
        case UInt8(ascii: "j"): try recall(Int(try read(UInt32.self)))
        case UInt8(ascii: "Q"): try pushStorage(try tuple(try pop()))
        case UInt8(ascii: "R"):
            let arguments = try tuple(try pop())
            guard case .callable(let callable) = try pop() else {
                throw failure("a call of something that was not imported")
            }
            try call(callable, arguments)
        case UInt8(ascii: "b"):
            // Attributes of a dictionary (module versions): not needed.
            _ = try pop()
            guard case .dictionary = try top() else { throw failure("attributes of no dictionary") }
        default:
            throw failure(
                "opcode 0x\(String(opcode, radix: 16)) is none that tensors need", .unsupported)
        }
    }

    private mutating func call(
        _ callable: PickleImport, _ arguments: ArraySlice<PickleValue>
    ) throws {
        switch callable {
        case .orderedDict:
            guard arguments.isEmpty else { throw failure("OrderedDict with arguments") }
            pushDictionary()
        case .rebuildTensor:
            // storage, offset, size, stride, requires_grad, hooks[, metadata]
            let values = Array(arguments.prefix(4))
            guard arguments.count >= 6, case .storage(let storage) = values[0],
                case .integer(let offset) = values[1]
            else { throw failure("arguments of _rebuild_tensor_v2 are no tensor's") }
            let (shape, strides) = (try integers(values[2]), try integers(values[3]))
            guard shape.count == strides.count, shape.count <= 8 else {
                throw failure("a tensor of size \(shape) with strides \(strides)")
            }
            tensors.append(
                PickleTensor(
                    storage: storages[storage], offset: offset, shape: shape, strides: strides))
            entryCount += 1
            stack.append(.tensor(tensors.count - 1))
        case .storage:
            throw failure("a storage is called")
        }
    }

    /// `('storage', class, key, location, count)`, the only persistent ids there are.
    private mutating func pushStorage(_ id: ArraySlice<PickleValue>) throws {
        let id = Array(id)
        guard id.count == 5, case .text("storage") = id[0],
            case .callable(.storage(let type)) = id[1],
            case .text(let key) = id[2], case .integer(let count) = id[4], count >= 0
        else { throw failure("a persistent id is no storage") }
        storages.append(PickleStorage(key: key, dtype: type, count: count))
        entryCount += 1
        stack.append(.storage(storages.count - 1))
    }

    private mutating func pushTuple(_ items: [PickleValue]) throws {
        let start = tuples.count
        tuples += items
        stack.append(.tuple(start..<tuples.count))
    }

    private mutating func pushDictionary() {
        dictionaries.append([:])
        entryCount += 1
        stack.append(.dictionary(dictionaries.count - 1))
    }

    /// Enters keys and values, one after the other, in the dictionary on top.
    private mutating func set(_ items: [PickleValue]) throws {
        guard items.count % 2 == 0, case .dictionary(let index) = try top() else {
            throw failure("keys and values for no dictionary")
        }
        for pair in stride(from: 0, to: items.count, by: 2) {
            switch (items[pair], items[pair + 1]) {
            case (.text(let key), let value):
                guard dictionaries[index].updateValue(value, forKey: key) == nil else {
                    throw failure("key '\(key)' is given twice")
                }
                entryCount += 1
            case (_, .tensor): throw failure("a tensor whose name is no text", .unsupported)
            default: break
            }
        }
    }

    // MARK: Stack and input

    private func failure(_ what: String, _ code: MartletError.Code = .corrupt) -> MartletError {
        MartletError(code, "pickle: \(what) at byte \(position)")
    }

    private static func allowed(_ module: String, _ name: String) throws -> PickleImport {
        guard let known = PickleImport(module: module, name: name) else {
            throw MartletError(
                .unsupported,
                "the pickle imports '\(module).\(name)', which is none of the names that tensors need",
                mend: "Only tensors are read and no code is run: save the weights as safetensors")
        }
        return known
    }

    private func top() throws -> PickleValue {
        guard let value = stack.last, stack.count > marks.last ?? 0 else {
            throw failure("a value is missing")
        }
        return value
    }

    private mutating func pop() throws -> PickleValue {
        let value = try top()
        stack.removeLast()
        return value
    }

    private mutating func popToMark() throws -> [PickleValue] {
        guard let mark = marks.popLast(), mark <= stack.count else { throw failure("no mark") }
        defer { stack.removeSubrange(mark...) }
        return Array(stack[mark...])
    }

    private mutating func recall(_ index: Int) throws {
        guard let value = memo[index] else { throw failure("value \(index) was never stored") }
        stack.append(value)
    }

    private func tuple(_ value: PickleValue) throws -> ArraySlice<PickleValue> {
        guard case .tuple(let range) = value else { throw failure("a tuple is missing") }
        return tuples[range]
    }

    private func integers(_ value: PickleValue) throws -> [Int] {
        try tuple(value).map {
            guard case .integer(let number) = $0 else { throw failure("a size is no integer") }
            return number
        }
    }

    private mutating func read<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type
    ) throws -> Value {
        guard let value = bytes.load(type, at: position) else { throw failure("the text ends") }
        position += MemoryLayout<Value>.size
        return value
    }

    /// LONG1: up to 8 bytes, two's complement.
    private mutating func readLong() throws -> Int {
        let count = Int(try read(UInt8.self))
        guard count <= 8 else { throw failure("an integer of \(count) bytes", .unsupported) }
        var bits: UInt64 = 0
        for place in 0..<count { bits |= UInt64(try read(UInt8.self)) << (8 * UInt64(place)) }
        let unused = 64 - 8 * count
        // Shifting up and down again extends the sign.
        return count == 0 ? 0 : (Int(truncatingIfNeeded: bits) << unused) >> unused
    }

    private mutating func text(_ count: Int) throws -> String {
        guard let content = bytes.slice(position, count: count),
            let text = content.withUnsafeBytes({ String(validating: $0, as: UTF8.self) })
        else { throw failure("a text of \(count) bytes is cut short or no UTF-8") }
        position += count
        return text
    }

    /// Text up to a line feed.
    private mutating func line() throws -> String {
        let rest = bytes.slice(position, count: min(bytes.count - position, 256)) ?? ByteView()
        guard let length = rest.withUnsafeBytes({ $0.firstIndex(of: 0x0a) }) else {
            throw failure("a name without end")
        }
        defer { position += 1 }
        return try text(length)
    }
}
