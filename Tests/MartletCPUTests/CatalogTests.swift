// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import Testing

@Suite struct CatalogTests {
    private func query(_ x: ElementFormat, _ w: ElementFormat, isParameter: Bool = true)
        -> KernelQuery
    {
        KernelQuery(
            op: "linear", attributes: [:],
            operands: [
                TensorType(x, [.T, 128]), TensorType(w, [256, 128]), nil,
            ],
            isParameter: [false, isParameter, false], results: [TensorType(.f32, [.T, 256])])
    }

    /// Families of linear that accept, by name, with the weight's layout.
    private func accepted(_ query: KernelQuery) -> [String: String] {
        var names: [String: String] = [:]
        for family in CPUCatalog().families where family.op == query.op {
            if case .accepted(let cost, let layouts) = family.evaluate(query) {
                #expect(layouts.count == query.operands.count)
                #expect(cost.operations == Dimension(tokens: 2 * 256 * 128))
                names[family.name] = layouts[1] ?? ""
            }
        }
        return names
    }

    @Test func eachWeightHasItsFamily() {
        let q4 = ElementFormat.weight(
            QuantizationScheme(bits: 4, group: .group(32), scaleType: .f16, zero: .floatMinimum))
        let q8 = ElementFormat.weight(
            QuantizationScheme(bits: 8, group: .channel, scaleType: .f32))
        #expect(
            accepted(query(.activation(.int8g64), q4))
                == ["linear_u4_int8g64": "panel16.u4.g32.min.f16"])
        #expect(accepted(query(.plain(.f32), q8)) == ["linear_u8_f32": "panel16.u8.channel.f32"])
        #expect(
            accepted(query(.plain(.bf16), .plain(.bf16))) == ["linear_bf16_f32": "panel16.bf16"])
        #expect(accepted(query(.activation(.int8g64), .plain(.f32))).isEmpty)
        #expect(accepted(query(.activation(.int8token), q8)).isEmpty)
        #expect(accepted(query(.plain(.f32), q8, isParameter: false)).isEmpty)
    }

    @Test func refusalsSayWhy() {
        let narrow = ElementFormat.weight(
            QuantizationScheme(bits: 4, group: .group(16), scaleType: .f16))
        let family = CPUCatalog().families.first { $0.name == "linear_u4_f32" }
        guard case .refused(let reason)? = family?.evaluate(query(.plain(.f32), narrow)) else {
            Issue.record("a group of 16 was accepted")
            return
        }
        #expect(reason == "a group of 16 is no multiple of 32")
    }

    @Test func rowBytes() {
        let catalog = CPUCatalog()
        #expect(catalog.rowBytes(.plain(.f32), columns: 3) == 12)
        #expect(catalog.rowBytes(.plain(.bf16), columns: 3) == 6)
        #expect(catalog.rowBytes(.plain(.i32), columns: 1) == 4)
        #expect(catalog.rowBytes(.activation(.int8g64), columns: 64) == 192)
        #expect(catalog.rowBytes(.activation(.fp8), columns: 64) == nil)
        #expect(catalog.rowBytes(.plain(.f32), columns: -1) == nil)
    }

    @Test func probesMeasure() throws {
        let probe = try CPUProbe(threadCount: 2)
        #expect(probe.threadCount == 2)
        #expect(try probe.readBandwidth(byteCount: 1 << 20, passes: 1) > 0)
        #expect(try probe.copyBandwidth(byteCount: 1 << 20, passes: 1) > 0)
        #expect(probe.int8Peak(iterations: 1000, passes: 1) > 0)
        #expect(probe.floatPeak(iterations: 1000, passes: 1) > 0)
        #expect(throws: MartletError.self) { try probe.readBandwidth(byteCount: 0) }
    }
}
