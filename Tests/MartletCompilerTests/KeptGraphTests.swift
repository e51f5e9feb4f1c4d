// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletGraph
import MartletModels
import MartletTestSupport
import Testing

/// Graphs that an engine keeps: read back, whoever wrote them, and compiled for any target.
@Suite struct KeptGraphTests {
    /// Kept graphs of two tiny models, one with coded weights and activations.
    private static let kept: [Graph] = {
        var coded = Compiler.Options()
        coded.recipe = PrecisionRecipe(
            weights: .scheme(name: "int8") { _ in
                QuantizationScheme(bits: 8, group: .group(32), scaleType: .f16)
            }, activations: .int8g64)
        let weights = RandomWeights(seed: 2)
        let llama = try? CompiledModel(TinyModels.llama(), weights: weights, options: coded)
        let windows = try? CompiledModel(AlternatingWindows(), weights: weights)
        return [llama, windows].compactMap { $0?.programs[0].kept }
    }()

    private static let catalogs: [any KernelCatalog] = [CPUCatalog(), RowsCatalog()]

    @Test func comeBackAndCompileToTheSamePlans() throws {
        #expect(Self.kept.count == 2)
        for graph in Self.kept {
            let read = try Compiler.readGraph(
                graph.text, entryPoint: "decode", constants: graph.constants)
            #expect(read.text == graph.text)
            for catalog in Self.catalogs {
                let plans = try [graph, read].map {
                    try Compiler.emit([$0], for: catalog).plans
                }
                #expect(plans[0] == plans[1])
                try plans[0][0].validate()
            }
        }
    }

    @Test func fusedFormsAreKeptAndDecomposedPerTarget() throws {
        let graph = try #require(Self.kept.first)
        #expect(RowsCatalog.missingOps.allSatisfy { (graph.opCounts[$0] ?? 0) > 0 })
        let rows = try Compiler.emit([graph], for: RowsCatalog()).plans[0]
        #expect(!rows.steps.contains { RowsCatalog.missingOps.contains($0.op) })
        let cpu = try Compiler.emit([graph], for: CPUCatalog()).plans[0]
        #expect(rows.steps.count > cpu.steps.count)
        #expect(rows.kvGroups[0].blockSize == 2 * cpu.kvGroups[0].blockSize)
    }

    /// What becomes of damaged text: a plan that is valid, or a `MartletError`.
    private func outcome(_ text: String, _ constants: [String: TensorData]) -> Bool {
        do {
            let graph = try Compiler.readGraph(text, entryPoint: "decode", constants: constants)
            for catalog in Self.catalogs {
                do {
                    for plan in try Compiler.emit([graph], for: catalog).plans {
                        try plan.validate()
                    }
                } catch is MartletError {}
            }
            return true
        } catch is MartletError {
            return false
        } catch {
            Issue.record("an error of another type: \(error)")
            return false
        }
    }

    @Test(arguments: [0, 1])
    func flippedBitsNeverTrap(_ index: Int) throws {
        let graph = Self.kept[index]
        let bytes = Array(graph.text.utf8)
        var random = SeededRandom(seed: 31)
        var refused = 0
        for _ in 0..<500 {
            var damaged = bytes
            for _ in 0...Int.random(in: 0...1, using: &random) {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                damaged[place] ^= 1 << UInt8.random(in: 0..<7, using: &random)
            }
            if !outcome(String(decoding: damaged, as: UTF8.self), graph.constants) { refused += 1 }
        }
        #expect(refused > 150 && refused < 500)
    }

    /// Numbers everywhere replaced by extreme ones.
    @Test(arguments: [0, 1])
    func extremeNumbersNeverTrap(_ index: Int) throws {
        let graph = Self.kept[index]
        let text = Array(graph.text)
        let starts = text.indices.filter {
            text[$0].isNumber && ($0 == 0 || !text[$0 - 1].isNumber)
        }
        let extremes = [
            "0", "1", "-1", "3", "9223372036854775807", "4611686018427387904", "1099511627776",
            "2147483648", "65536", "1048576*T", "1e308",
        ]
        var random = SeededRandom(seed: 8)
        for _ in 0..<500 {
            var damaged = text
            let start = starts[Int.random(in: 0..<starts.count, using: &random)]
            let end = text[start...].firstIndex { !$0.isNumber } ?? text.endIndex
            let extreme = extremes[Int.random(in: 0..<extremes.count, using: &random)]
            damaged.replaceSubrange(start..<end, with: Array(extreme))
            _ = outcome(String(damaged), graph.constants)
        }
    }

    /// One size replaced wherever it stands, so that shapes still agree.
    @Test(arguments: ["64", "96", "16", "4", "2"])
    func aSizeReplacedEverywhereNeverTraps(_ size: String) throws {
        for graph in Self.kept {
            for extreme in ["0", "1", "7", "1099511627776", "2147483648", "4194304", "65536"] {
                var text = ""
                var digits = ""
                for character in graph.text + " " {
                    if character.isNumber {
                        digits.append(character)
                    } else {
                        text += digits == size ? extreme : digits
                        digits = ""
                        text.append(character)
                    }
                }
                _ = outcome(text, graph.constants)
            }
        }
    }

    @Test func errorsNameWhatIsWrong() throws {
        let graph = Self.kept[0]
        func error(
            _ text: String, constants: [String: TensorData], entryPoint: String = "decode"
        ) -> MartletError? {
            do {
                _ = try Compiler.readGraph(text, entryPoint: entryPoint, constants: constants)
                return nil
            } catch { return error as? MartletError }
        }
        let missing = error(graph.text, constants: [:])
        #expect(missing?.code == .corrupt)
        #expect(missing?.message.contains("'rotary.inverseFrequencies'") == true)
        let short = try TensorData([1, 2], shape: [2])
        let shape = error(graph.text, constants: ["rotary.inverseFrequencies": short])
        #expect(shape?.code == .shapeMismatch && shape?.message.contains("[2]") == true)
        let name = error(graph.text, constants: graph.constants, entryPoint: "embed")
        #expect(name?.code == .corrupt && name?.message.contains("'embed'") == true)
        #expect(error(String(graph.text.dropLast(3)), constants: graph.constants) != nil)
    }
}
