// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Writes zip files of stored members, well-formed or not.
struct SmallZip {
    var method: UInt16 = 0
    var flags: UInt16 = 0
    /// Added to the number of members in the record at the end.
    var extraMembers = 0
    /// Sizes and places in the directory are in 64-bit fields.
    var isWide = false
    private(set) var content = Bytes()
    private var directory = Bytes()
    private var count = 0

    mutating func add(_ name: String, _ bytes: [UInt8], declared: Int? = nil) {
        let place = content.content.count
        let size = declared ?? bytes.count
        content.add(UInt32(0x0403_4b50))
        content.content += [UInt8](repeating: 0, count: 22)
        content.add(UInt16(name.utf8.count))
        content.add(UInt16(0))
        content.content += name.utf8
        content.content += bytes
        directory.add(UInt32(0x0201_4b50))
        directory.add(UInt32(0))
        directory.add(flags)
        directory.add(method)
        directory.content += [UInt8](repeating: 0, count: 8)
        for _ in 0..<2 { directory.add(isWide ? .max : UInt32(size)) }
        directory.add(UInt16(name.utf8.count))
        directory.add(UInt16(isWide ? 28 : 0))
        directory.content += [UInt8](repeating: 0, count: 10)
        directory.add(isWide ? .max : UInt32(place))
        directory.content += name.utf8
        if isWide {
            directory.add(UInt16(1))
            directory.add(UInt16(24))
            for value in [size, size, place] { directory.add(UInt64(value)) }
        }
        count += 1
    }

    var bytes: [UInt8] {
        var file = content
        let start = file.content.count
        file.content += directory.content
        let end = file.content.count
        if isWide {
            file.add(UInt32(0x0606_4b50))
            file.content += [UInt8](repeating: 0, count: 28)
            for value in [count + extraMembers, end - start, start] { file.add(UInt64(value)) }
            file.add(UInt32(0x0706_4b50))
            file.add(UInt32(0))
            file.add(UInt64(end))
            file.add(UInt32(1))
        }
        file.add(UInt32(0x0605_4b50))
        file.add(UInt32(0))
        for _ in 0..<2 { file.add(isWide ? .max : UInt16(count + extraMembers)) }
        file.add(isWide ? .max : UInt32(end - start))
        file.add(isWide ? .max : UInt32(start))
        file.add(UInt16(0))
        return file.content
    }
}

/// Writes pickles opcode by opcode.
struct SmallPickle {
    var bytes: [UInt8] = [0x80, 2]

    mutating func put(_ opcode: Character) { bytes += String(opcode).utf8 }

    mutating func text(_ text: String) {
        var count = Bytes()
        count.add(UInt32(text.utf8.count))
        bytes += [UInt8(ascii: "X")] + count.content + text.utf8
    }

    mutating func number(_ value: Int) {
        var digits = Bytes()
        digits.add(Int64(value))
        bytes += [0x8a, 8] + digits.content
    }

    mutating func global(_ module: String, _ name: String) {
        bytes += "c\(module)\n\(name)\n".utf8
    }

    mutating func numbers(_ values: [Int]) {
        put("(")
        for value in values { number(value) }
        put("t")
    }

    /// A tensor, as `torch.save` writes it.
    mutating func tensor(
        key: String = "0", type: String = "FloatStorage", count: Int = 6, offset: Int = 0,
        shape: [Int] = [2, 3], strides: [Int] = [3, 1]
    ) {
        global("torch._utils", "_rebuild_tensor_v2")
        bytes += "((".utf8
        text("storage")
        global("torch", type)
        text(key)
        text("cpu")
        number(count)
        bytes += "tQ".utf8
        number(offset)
        numbers(shape)
        numbers(strides)
        bytes.append(0x89)
        global("collections", "OrderedDict")
        bytes += ")RtR".utf8
    }

    /// A dictionary of one tensor named `a`, stored as a whole file.
    static func file(
        storage: Int = 24, members: [(String, [UInt8])] = [], _ tensor: (inout SmallPickle) -> Void
    ) -> [UInt8] {
        var pickle = SmallPickle()
        pickle.put("}")
        pickle.text("a")
        tensor(&pickle)
        pickle.bytes += "s.".utf8
        return file(pickle.bytes, storage: storage, members: members)
    }

    /// A file with a given pickle.
    static func file(
        _ pickle: [UInt8], storage: Int = 24, members: [(String, [UInt8])] = []
    ) -> [UInt8] {
        var zip = SmallZip()
        zip.add("x/data.pkl", pickle)
        zip.add("x/data/0", (0..<storage).map { UInt8(truncatingIfNeeded: $0) })
        for (name, bytes) in members { zip.add(name, bytes) }
        return zip.bytes
    }
}
