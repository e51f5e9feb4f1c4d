// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// Layouts `mma16x16[.paired8][.interleaveN]`: weights in the order of the matrix instruction's operands.
///
/// Described in `decode/mma16x16.cuh`. Strips of 16 rows; a strip is a sequence of chunks along k; a chunk
/// is some words of 512 bytes, 16 a lane, then the scales of its groups. Scales per channel are f32 in a
/// plane behind the chunks, zeros in another. `paired8`: a strip's first 8 rows are of the matrix's first
/// half (gate), the others the same rows of its second half (up). `interleaveN`: N blocks own whole strips,
/// those with one more come first; chunk j of block b lies at j N + b, so that all blocks together read
/// memory in order.
struct FragmentLayout: Sendable, Hashable {
    /// Name of the layout, with its parameters.
    let name: String

    /// The layout for weights of new engines: codes interleaved over the multiprocessors of an H100, which
    /// decode gains 1 to 3 % from; 16-bit numbers not, for prompts would lose 5 to 10 % of the rate.
    static func name(for format: ElementFormat, isPaired: Bool) -> String {
        "mma16x16" + (isPaired ? ".paired8" : "")
            + (format.scheme == nil ? "" : ".interleave132")
    }

    /// How weights are stored.
    enum Kind: Sendable, Hashable {
        case plain(DType)
        case codes(QuantizationScheme)
    }

    let kind: Kind
    let rows: Int
    let inputs: Int
    let isPaired: Bool
    /// Blocks that chunks are interleaved over; 0 for strips one after another.
    let interleave: Int
    /// Inputs of a word of 512 bytes.
    let wordInputs: Int
    /// Words of a chunk.
    let chunkWords: Int

    /// - Throws: `Refusal` where the layout cannot hold the weight.
    init(_ layout: String, _ format: ElementFormat, _ shape: [Int]) throws {
        name = layout
        var words = layout.split(separator: ".", omittingEmptySubsequences: false)[...]
        guard words.popFirst() == "mma16x16" else {
            throw Refusal("there is no layout '\(layout)'")
        }
        isPaired = words.first == "paired8"
        if isPaired { words.removeFirst() }
        var blocks = 0
        if let word = words.popFirst() {
            guard word.hasPrefix("interleave"), let count = Int(word.dropFirst(10)),
                (1...4096).contains(count), words.isEmpty
            else { throw Refusal("there is no layout '\(layout)'") }
            blocks = count
        }
        guard shape.count == 2, shape.allSatisfy({ $0 > 0 && $0 < 1 << 28 }) else {
            throw Refusal("layout '\(layout)' holds matrices, not shape \(shape)")
        }
        (rows, inputs) = (shape[0], shape[1])
        guard !isPaired || rows % 2 == 0 else {
            throw Refusal("layout '\(layout)' pairs rows, of which there are \(rows)")
        }
        switch format {
        case .plain(let type) where type == .f16 || type == .bf16:
            kind = .plain(type)
            wordInputs = 16
        case .weight(let scheme) where scheme.bits == 4 || scheme.bits == 8:
            kind = .codes(scheme)
            wordInputs = scheme.bits == 4 ? 64 : 32
        default: throw Refusal("layout '\(layout)' holds f16, bf16, int8 and int4, not \(format)")
        }
        guard inputs % wordInputs == 0 else {
            throw Refusal("\(inputs) inputs are no multiple of \(wordInputs)")
        }
        let count = inputs / wordInputs
        chunkWords = count % 4 == 0 ? 4 : count % 2 == 0 ? 2 : 1
        // Fewer strips than blocks lie the same over as many blocks as strips.
        interleave = min(blocks, isPaired ? (rows / 2 + 7) / 8 : (rows + 15) / 16)
        if case .codes(let scheme) = kind { try Self.check(scheme, chunkWords * wordInputs) }
    }

    private static func check(_ scheme: QuantizationScheme, _ chunkInputs: Int) throws {
        guard scheme.scaleType.isActivation else {
            throw Refusal("scales of \(scheme.scaleType.rawValue) have no place in the layout")
        }
        guard case .group(let size) = scheme.group else { return }
        guard [32, 64, 128].contains(size), chunkInputs % size == 0 else {
            throw Refusal("a chunk of \(chunkInputs) inputs does not hold groups of \(size)")
        }
        guard scheme.scaleType == .f16 else {
            throw Refusal("scales of groups are f16, not \(scheme.scaleType.rawValue)")
        }
    }

    var strips: Int { isPaired ? (rows / 2 + 7) / 8 : (rows + 15) / 16 }
    var chunkInputs: Int { chunkWords * wordInputs }
    var stripChunks: Int { inputs / chunkInputs }
    var scheme: QuantizationScheme? { if case .codes(let scheme) = kind { scheme } else { nil } }
    /// Inputs of a group; 0 for scales per channel or none.
    var groupSize: Int {
        if case .group(let size)? = scheme?.group { size } else { 0 }
    }
    var hasZeros: Bool { scheme.map { $0.zero != .none } ?? false }
    private var groupBytes: Int { hasZeros ? 64 : 32 }
    var chunkBytes: Int {
        chunkWords * 512 + (groupSize > 0 ? chunkInputs / groupSize * groupBytes : 0)
    }
    private var codeBytes: Int { strips * stripChunks * chunkBytes }
    private var planeBytes: Int { (strips * 64 + 255) / 256 * 256 }
    private var hasPlanes: Bool { scheme != nil && groupSize == 0 }
    /// Where the scales per channel begin.
    var scaleStart: Int { (codeBytes + 255) / 256 * 256 }
    /// Where the zeros per channel begin.
    var zeroStart: Int { scaleStart + planeBytes }
    var byteCount: Int {
        hasPlanes ? zeroStart + (hasZeros ? planeBytes : 0) : codeBytes
    }

    /// Which chunk of the weight is the i-th of a strip.
    private func chunkIndex(_ strip: Int, _ i: Int) -> Int {
        guard interleave > 0 else { return strip * stripChunks + i }
        let (few, longer) = strips.quotientAndRemainder(dividingBy: interleave)
        let even = few * stripChunks
        let isLonger = strip < longer * (few + 1)
        let block = isLonger ? strip / (few + 1) : (strip - longer) / few
        let first = isLonger ? block * (few + 1) : longer + block * few
        let j = (strip - first) * stripChunks + i
        return j < even ? j * interleave + block : even * interleave + (j - even) * longer + block
    }

    /// The matrix's row at a place of a strip; nil for padding.
    func row(strip: Int, _ place: Int) -> Int? {
        guard isPaired else {
            let row = strip * 16 + place
            return row < rows ? row : nil
        }
        let row = strip * 8 + place % 8
        return row < rows / 2 ? row + (place < 8 ? 0 : rows / 2) : nil
    }

    // MARK: Packing

    func pack(_ weight: WeightValue) throws -> ByteView {
        switch (weight, kind) {
        case (.plain(let tensor), .plain):
            let source = tensor.bytes
            return ByteView(count: byteCount) { target in
                forEachStrip { strip in
                    source.withUnsafeBytes { bytes in
                        forEachPlain(strip) { row, k, place in
                            let value =
                                row.map {
                                    bytes.loadUnaligned(
                                        fromByteOffset: ($0 * inputs + k) * 2, as: UInt16.self)
                                } ?? 0
                            target.storeBytes(of: value, toByteOffset: place, as: UInt16.self)
                        }
                    }
                }
            }
        case (.quantized(let tensor), .codes):
            if tensor.inputOrder != nil {
                throw MartletError(
                    .unsupported,
                    "layout '\(name)' cannot hold a weight with an input order (g_idx)",
                    mend: "Permute its inputs, or dequantize it")
            }
            let parts = Parts(tensor)
            return ByteView(count: byteCount) { target in
                forEachStrip { strip in packCodes(strip, parts, target) }
            }
        default: throw MartletError(.internalError, "a weight does not fit its layout")
        }
    }

    func unpack(_ bytes: ByteView, shape: [Int]) throws -> WeightValue {
        guard bytes.count == byteCount else {
            throw MartletError(
                .corrupt,
                "\(bytes.count) bytes do not hold shape \(shape) in layout '\(name)', which takes \(byteCount)"
            )
        }
        switch kind {
        case .plain(let type):
            let view = ByteView(count: rows * inputs * 2) { target in
                forEachStrip { strip in
                    bytes.withUnsafeBytes { source in
                        forEachPlain(strip) { row, k, place in
                            guard let row else { return }
                            target.storeBytes(
                                of: source.loadUnaligned(fromByteOffset: place, as: UInt16.self),
                                toByteOffset: (row * inputs + k) * 2, as: UInt16.self)
                        }
                    }
                }
            }
            return .plain(try TensorData(dtype: type, shape: shape, bytes: view))
        case .codes(let scheme): return .quantized(try unpackCodes(bytes, scheme, shape))
        }
    }

    /// Strips on all cores: they touch different bytes.
    private func forEachStrip(_ body: (Int) -> Void) {
        withoutActuallyEscaping(body) { body in
            let shared = SharedBody(body)
            let piece = max(1, (1 << 18) / (16 * inputs))
            Parallel.forEach((strips + piece - 1) / piece) { index in
                for strip in index * piece..<min((index + 1) * piece, strips) { shared.body(strip) }
            }
        }
    }

    /// A closure that threads call at once for different strips.
    private struct SharedBody: @unchecked Sendable {
        let body: (Int) -> Void
        init(_ body: @escaping (Int) -> Void) { self.body = body }
    }

    /// Row, input and place of every 16-bit number of a strip.
    private func forEachPlain(_ strip: Int, _ body: (Int?, Int, Int) -> Void) {
        for tile in 0..<inputs / 16 {
            let start = wordStart(strip, tile)
            for lane in 0..<32 {
                let (g, t) = (lane / 4, lane % 4)
                var place = start + lane * 16
                for phase in 0..<2 {
                    for high in 0..<2 {
                        let row = row(strip: strip, g + 8 * high)
                        for e in 0..<2 {
                            body(row, tile * 16 + phase * 8 + 2 * t + e, place)
                            place += 2
                        }
                    }
                }
            }
        }
    }

    // MARK: Codes

    /// Addresses of a canonical weight's parts, read by several threads.
    private struct Parts: @unchecked Sendable {
        let owner: QuantizedTensor
        let codes: UnsafeRawPointer
        let scales: UnsafeRawPointer
        let zeros: UnsafeRawPointer

        init(_ tensor: QuantizedTensor) {
            owner = tensor
            codes = tensor.codes.unsafeBaseAddress
            scales = tensor.scales.unsafeBaseAddress
            zeros = tensor.zeros.unsafeBaseAddress
        }
    }

    /// Where a word of a strip begins.
    private func wordStart(_ strip: Int, _ word: Int) -> Int {
        chunkIndex(strip, word / chunkWords) * chunkBytes + word % chunkWords * 512
    }

    /// Rows and inputs of the codes of a lane's 16 bytes, in order; 4-bit codes from the low half on.
    private func forEachCode(
        _ strip: Int, _ word: Int, _ lane: Int, _ body: (Int?, Int, Int) -> Void
    ) {
        let (g, t) = (lane / 4, lane % 4)
        if wordInputs == 32 {
            var index = 0
            for tile in 0..<2 {
                for phase in 0..<2 {
                    for high in 0..<2 {
                        let row = row(strip: strip, g + 8 * high)
                        for e in 0..<2 {
                            body(row, word * 32 + tile * 16 + phase * 8 + 2 * t + e, index)
                            index += 1
                        }
                    }
                }
            }
        } else {
            let (low, high) = (row(strip: strip, g), row(strip: strip, g + 8))
            for index in 0..<32 {
                let (tile, nibble) = (index / 8, index % 8)
                let (e, isHigh, phase) = (nibble / 4, nibble / 2 % 2, nibble % 2)
                body(
                    isHigh == 1 ? high : low, word * 64 + tile * 16 + phase * 8 + 2 * t + e, index)
            }
        }
    }

    private func packCodes(
        _ strip: Int, _ parts: Parts, _ target: UnsafeMutableRawBufferPointer
    ) {
        let isByte = wordInputs == 32
        let rowBytes = isByte ? inputs : (inputs + 1) / 2
        for word in 0..<inputs / wordInputs {
            for lane in 0..<32 {
                let place = wordStart(strip, word) + lane * 16
                forEachCode(strip, word, lane) { row, k, index in
                    guard let row else { return }
                    if isByte {
                        target[place + index] = parts.codes.load(
                            fromByteOffset: row * rowBytes + k, as: UInt8.self)
                    } else {
                        let pair = parts.codes.load(
                            fromByteOffset: row * rowBytes + k / 2, as: UInt8.self)
                        let code = k % 2 == 0 ? pair & 15 : pair >> 4
                        target[place + index / 2] |= index % 2 == 0 ? code : code << 4
                    }
                }
            }
        }
        forEachScale(strip) { row, group, scalePlace, zeroPlace in
            guard let row else { return }
            let index = scaleIndex(row, group)
            if groupSize > 0 {
                target.storeBytes(
                    of: parts.scales.loadUnaligned(fromByteOffset: index * 2, as: UInt16.self),
                    toByteOffset: scalePlace, as: UInt16.self)
                if hasZeros {
                    let zero = self.zero(parts, index)
                    target.storeBytes(
                        of: Half.bits(zero), toByteOffset: zeroPlace, as: UInt16.self)
                }
            } else {
                target.storeBytes(
                    of: number(parts.scales, index), toByteOffset: scalePlace, as: Float.self)
                if hasZeros {
                    target.storeBytes(
                        of: zero(parts, index), toByteOffset: zeroPlace, as: Float.self)
                }
            }
        }
    }

    private func unpackCodes(
        _ bytes: ByteView, _ scheme: QuantizationScheme, _ shape: [Int]
    ) throws -> QuantizedTensor {
        let isByte = wordInputs == 32
        let rowBytes = isByte ? inputs : (inputs + 1) / 2
        let groups = (scheme.group == .tensor ? 1 : rows) * scheme.groupCount(inputs: inputs)
        let element = scheme.scaleType.byteCount
        let zeroBytes = scheme.zero == .none ? 0 : scheme.zero == .integer ? 1 : element
        var (scales, zeros) = (ByteView(), ByteView())
        let source = bytes.unsafeBaseAddress
        let codes = ByteView(count: rows * rowBytes) { codes in
            scales = ByteView(count: groups * element) { scales in
                zeros = ByteView(count: groups * zeroBytes) { zeros in
                    for strip in 0..<strips {
                        for word in 0..<inputs / wordInputs {
                            for lane in 0..<32 {
                                let place = wordStart(strip, word) + lane * 16
                                forEachCode(strip, word, lane) { row, k, index in
                                    guard let row else { return }
                                    if isByte {
                                        codes[row * rowBytes + k] = source.load(
                                            fromByteOffset: place + index, as: UInt8.self)
                                    } else {
                                        let pair = source.load(
                                            fromByteOffset: place + index / 2, as: UInt8.self)
                                        let code = index % 2 == 0 ? pair & 15 : pair >> 4
                                        codes[row * rowBytes + k / 2] |=
                                            k % 2 == 0 ? code : code << 4
                                    }
                                }
                            }
                        }
                        forEachScale(strip) { row, group, scalePlace, zeroPlace in
                            guard let row else { return }
                            let index = scaleIndex(row, group)
                            func read(_ place: Int) -> Float {
                                groupSize > 0
                                    ? Half.float(
                                        bits: source.loadUnaligned(
                                            fromByteOffset: place, as: UInt16.self))
                                    : source.loadUnaligned(fromByteOffset: place, as: Float.self)
                            }
                            store(read(scalePlace), scheme.scaleType, scales, index)
                            switch scheme.zero {
                            case .none: break
                            case .integer:
                                zeros[index] = UInt8(clamping: Int(read(zeroPlace)))
                            case .floatMinimum:
                                store(read(zeroPlace), scheme.scaleType, zeros, index)
                            }
                        }
                    }
                }
            }
        }
        return try QuantizedTensor(
            scheme: scheme, shape: shape, codes: codes, scales: scales, zeros: zeros)
    }

    // MARK: Scales

    /// Row, group and places of every scale of a strip and its zero.
    private func forEachScale(_ strip: Int, _ body: (Int?, Int, Int, Int) -> Void) {
        guard groupSize > 0 else {
            for place in 0..<16 {
                let offset = (strip * 16 + place) * 4
                body(row(strip: strip, place), 0, scaleStart + offset, zeroStart + offset)
            }
            return
        }
        let chunkGroups = chunkInputs / groupSize
        for chunk in 0..<stripChunks {
            for group in 0..<chunkGroups {
                let start =
                    chunkIndex(strip, chunk) * chunkBytes + chunkWords * 512
                    + group * groupBytes
                for place in 0..<16 {
                    let (g, high) = (place % 8, place / 8)
                    let at = start + g * (hasZeros ? 8 : 4) + high * 2
                    body(row(strip: strip, place), chunk * chunkGroups + group, at, at + 4)
                }
            }
        }
    }

    private func scaleIndex(_ row: Int, _ group: Int) -> Int {
        guard let scheme, scheme.group != .tensor else { return 0 }
        return row * scheme.groupCount(inputs: inputs) + group
    }

    private func number(_ base: UnsafeRawPointer, _ index: Int) -> Float {
        switch scheme?.scaleType {
        case .f16:
            Half.float(bits: base.loadUnaligned(fromByteOffset: index * 2, as: UInt16.self))
        case .bf16:
            Float(
                BFloat16(
                    bitPattern: base.loadUnaligned(fromByteOffset: index * 2, as: UInt16.self)))
        default: base.loadUnaligned(fromByteOffset: index * 4, as: Float.self)
        }
    }

    private func zero(_ parts: Parts, _ index: Int) -> Float {
        scheme?.zero == .integer
            ? Float(parts.zeros.load(fromByteOffset: index, as: UInt8.self))
            : number(parts.zeros, index)
    }

    private func store(
        _ value: Float, _ type: DType, _ target: UnsafeMutableRawBufferPointer, _ index: Int
    ) {
        switch type {
        case .f16: target.storeBytes(of: Half.bits(value), toByteOffset: index * 2, as: UInt16.self)
        case .bf16:
            target.storeBytes(
                of: BFloat16(value).bitPattern, toByteOffset: index * 2, as: UInt16.self)
        default: target.storeBytes(of: value, toByteOffset: index * 4, as: Float.self)
        }
    }
}
