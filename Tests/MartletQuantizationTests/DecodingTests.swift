// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletQuantization
import Testing

/// The formula of `QuantizationScheme` and what follows from it.
@Suite struct DecodingTests {
    static let schemes = [
        "int8.channel.f32", "int8.g32.f16", "int8.g32.zero.f32", "int8.g64.min.bf16",
        "int4.channel.f32", "int4.g32.f16", "int4.g32.zero.f16", "int4.g32.min.f16",
        "int4.g64.min.f32",
    ]

    private func scheme(_ name: String) throws -> QuantizationScheme {
        try #require(QuantizationScheme(name))
    }

    private func floats(_ view: ByteView, _ type: DType) throws -> [Float] {
        try TensorData(dtype: type, shape: [view.count / type.byteCount], bytes: view).floats()
    }

    /// One code, read without the decoder.
    private func code(_ tensor: QuantizedTensor, _ row: Int, _ column: Int) -> Float {
        let bytes = tensor.codes.array(of: UInt8.self)
        let columns = tensor.inputCount
        if tensor.scheme.bits == 8 { return Float(bytes[row * columns + column]) }
        let pair = bytes[row * ((columns + 1) / 2) + column / 2]
        return Float(column % 2 == 0 ? pair % 16 : pair / 16)
    }

    /// A tensor of arbitrary codes, scales and zeros.
    private func arbitrary(_ scheme: QuantizationScheme, rows: Int, columns: Int) throws
        -> QuantizedTensor
    {
        var state: UInt64 = 77
        func byte() -> UInt8 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 40)
        }
        let groups = rows * scheme.groupCount(inputs: columns)
        func numbers() throws -> ByteView {
            let values = (0..<groups).map { _ in (Float(byte()) - 100) / 64 }
            return try TensorData(values, shape: [groups]).converted(to: scheme.scaleType).bytes
        }
        let codeBytes = rows * (scheme.bits == 4 ? (columns + 1) / 2 : columns)
        let codes = ByteView((0..<codeBytes).map { _ in byte() })
        let zeros =
            switch scheme.zero {
            case .none: ByteView()
            case .integer:
                ByteView((0..<groups).map { _ in byte() % (scheme.bits == 4 ? 16 : 255) })
            case .floatMinimum: try numbers()
            }
        return try QuantizedTensor(
            scheme: scheme, shape: [rows, columns], codes: codes, scales: try numbers(),
            zeros: zeros)
    }

    @Test(arguments: schemes, [(3, 128), (5, 33), (1, 1), (2, 70)])
    func decodesByTheFormula(_ name: String, _ shape: (Int, Int)) throws {
        let scheme = try scheme(name)
        let (rows, columns) = shape
        let tensor = try arbitrary(scheme, rows: rows, columns: columns)
        let decoded = try SchemeRegistry.decode(tensor)
        #expect(decoded.shape == [rows, columns] && decoded.dtype == .f32)
        let values = try decoded.floats()
        let scales = try floats(tensor.scales, scheme.scaleType)
        let size = scheme.groupSize(inputs: columns)
        let groups = scheme.groupCount(inputs: columns)
        for row in 0..<rows {
            for column in 0..<columns {
                let group = row * groups + column / size
                let number = code(tensor, row, column)
                let expected: Float
                switch scheme.zero {
                case .none: expected = (number - (scheme.bits == 4 ? 8 : 128)) * scales[group]
                case .integer:
                    let zero = Float(tensor.zeros.array(of: UInt8.self)[group])
                    expected = (number - zero) * scales[group]
                case .floatMinimum:
                    expected =
                        number * scales[group]
                        + (try floats(tensor.zeros, scheme.scaleType))[group]
                }
                #expect(values[row * columns + column] == expected)
            }
        }
    }

    @Test func inputOrderChoosesTheGroup() throws {
        let scheme = try scheme("int8.g32.f32")
        let order: [Int32] = (0..<64).map { Int32(($0 * 7) % 2) }
        let tensor = try QuantizedTensor(
            scheme: scheme, shape: [1, 64], codes: ByteView([UInt8](repeating: 129, count: 64)),
            scales: ByteView([2, 5] as [Float]), inputOrder: ByteView(order))
        #expect(try SchemeRegistry.decode(tensor).floats() == order.map { $0 == 0 ? 2 : 5 })
    }

    /// Numbers that a scheme can hold come back exactly.
    @Test(arguments: schemes)
    func representableNumbersAreExact(_ name: String) throws {
        let scheme = try scheme(name)
        // Every code times a power of two, from the lowest code's value to the highest's.
        let top: Float = scheme.bits == 4 ? 15 : 255
        let lowest: Float
        switch scheme.zero {
        case .none: lowest = scheme.bits == 4 ? -8 : -127
        case .integer: lowest = -7
        case .floatMinimum: lowest = -3
        }
        let highest = scheme.zero == .none ? (scheme.bits == 4 ? 7 : 127) : lowest + top
        var row: [Float] = []
        for index in 0..<64 {
            // Each group of 32 holds both ends.
            let inner = lowest + Float((index * 37) % 64) / 64 * (highest - lowest)
            row.append(
                index % 32 == 0 ? lowest : index % 32 == 1 ? highest : inner.rounded(.down))
        }
        let values = row.map { $0 * 0.25 } + row.map { $0 * -0.25 }.reversed()
        let kept = scheme.zero == .none && scheme.bits == 8 ? values : Array(values.prefix(64))
        let tensor = try TensorData(kept, shape: [kept.count / 64, 64])
        let coded = try SchemeRegistry.encode(tensor, scheme)
        #expect(try SchemeRegistry.decode(coded).floats() == kept)
    }

    @Test(arguments: schemes)
    func codingTwiceChangesNothing(_ name: String) throws {
        let scheme = try scheme(name)
        let tensor = try SchemeTests.matrix(70, 96, seed: 5)
        let (a, b) = (
            try SchemeRegistry.encode(tensor, scheme), try SchemeRegistry.encode(tensor, scheme)
        )
        #expect(a.codes.hasSameBytes(as: b.codes))
        #expect(a.scales.hasSameBytes(as: b.scales) && a.zeros.hasSameBytes(as: b.zeros))
        // Rows are independent: part of a matrix has the codes it has in the whole.
        let some = try TensorData(Array(try tensor.floats()[96 * 20..<96 * 50]), shape: [30, 96])
        let part = try SchemeRegistry.encode(some, scheme)
        let rowBytes = a.codes.count / 70
        #expect(
            try #require(a.codes.slice(20 * rowBytes, count: 30 * rowBytes))
                .hasSameBytes(as: part.codes))
    }

    @Test(arguments: schemes)
    func narrowWeightsAreWidenedFirst(_ name: String) throws {
        let scheme = try scheme(name)
        for type in [DType.f16, .bf16] {
            let narrow = try SchemeTests.matrix(4, 64).converted(to: type)
            let wide = try narrow.converted(to: .f32)
            let (a, b) = (
                try SchemeRegistry.encode(narrow, scheme), try SchemeRegistry.encode(wide, scheme)
            )
            #expect(a.codes.hasSameBytes(as: b.codes) && a.scales.hasSameBytes(as: b.scales))
        }
    }

    @Test(arguments: [[64], [2, 4, 64], []])
    func refusesOtherRanks(_ shape: [Int]) throws {
        let count = try #require(TensorData.elementCount(shape))
        let tensor = try TensorData([Float](repeating: 1, count: count), shape: shape)
        let scheme = try scheme("int8.channel.f32")
        #expect(throws: MartletError.self) { try SchemeRegistry.encode(tensor, scheme) }
    }

    /// Threads meet weights that are not finite in any order; the first one is named.
    @Test func namesTheFirstWeightThatIsNotFinite() throws {
        var values = [Float](repeating: 1, count: 200 * 64)
        for (row, column) in [(180, 3), (37, 5), (37, 9), (90, 0)] {
            values[row * 64 + column] = .infinity
        }
        let tensor = try TensorData(values, shape: [200, 64])
        let scheme = try scheme("int8.channel.f32")
        let error = #expect(throws: MartletError.self) {
            try SchemeRegistry.encode(tensor, scheme, firstRow: 1000)
        }
        #expect(error?.message.contains("row 1037, column 5 is inf") == true)
    }

    @Test func refusesWhatNoCodecHandles() throws {
        let tensor = try SchemeTests.matrix(2, 32)
        for scheme in [
            QuantizationScheme(bits: 8, group: .tensor, scaleType: .f32),
            QuantizationScheme(bits: 3, group: .channel, scaleType: .f32),
        ] {
            let error = #expect(throws: MartletError.self) {
                try SchemeRegistry.encode(tensor, scheme)
            }
            #expect(error?.code == .unsupported)
        }
    }

    @Test(arguments: [[0, 32], [3, 0], [0, 0]])
    func emptyMatricesStayEmpty(_ shape: [Int]) throws {
        for name in Self.schemes {
            let tensor = try TensorData([], shape: shape)
            let coded = try SchemeRegistry.encode(tensor, scheme(name))
            #expect(try SchemeRegistry.decode(coded).shape == shape)
        }
    }

    /// Scales without a finite reciprocal.
    @Test(arguments: ["int8.channel.f32", "int8.g32.bf16", "int4.g32.f32", "int4.g32.zero.f32"])
    func tinyNumbersStayTiny(_ name: String) throws {
        let values = (0..<64).map { Float($0 % 5 - 2) * 1e-38 }
        let coded = try SchemeRegistry.encode(
            TensorData(values, shape: [2, 32]), scheme(name))
        for (value, decoded) in zip(values, try SchemeRegistry.decode(coded).floats()) {
            #expect(abs(decoded - value) <= abs(value))
        }
    }

    @Test func namesChooseGroupZeroAndType() throws {
        for (text, expected) in [
            ("int4:g64:asym", "int4.g64.min.f16"), ("int4:asym:g64", "int4.g64.min.f16"),
            ("int4:g32:zero", "int4.g32.zero.f16"), ("int8:channel:sym", "int8.channel.f32"),
            ("int8:g128", "int8.g128.f16"), ("int8:zero", "int8.channel.zero.f32"),
            ("int4:channel", "int4.channel.f32"), ("int4:asym", "int4.g128.min.f16"),
        ] {
            let choice = try SchemeRegistry.choice(text)
            #expect(choice.name == text)
            #expect(try choice.scheme(256).description == expected, "\(text)")
        }
    }

    @Test func errorsNameTheGroupsThatDivide() throws {
        for (text, inputs, named, unnamed) in [
            ("int4:g128", 192, ["g64", "g32", "channel"], ["g128,"]),
            ("int8:g64", 96, ["g32", "channel"], ["g64"]),
            ("int4:g32:asym", 40, ["channel"], ["g32", "g64"]),
        ] {
            let error = #expect(throws: MartletError.self) {
                try SchemeRegistry.choice(text).scheme(inputs)
            }
            #expect(error?.code == .invalidArgument)
            #expect(error?.message.contains("\(inputs)") == true)
            for name in named { #expect(error?.mend?.contains(name) == true) }
            for name in unnamed { #expect(error?.mend?.contains(name) == false) }
        }
        let error = #expect(throws: MartletError.self) { try SchemeRegistry.choice("int5") }
        #expect(error?.mend?.contains("int8, int4") == true)
    }
}
