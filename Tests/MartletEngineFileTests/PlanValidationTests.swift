// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import MartletCore
import MartletEngineFile
import Testing

struct PlanValidationTests {
    struct Case: CustomTestStringConvertible, Sendable {
        let name: String
        let change: @Sendable (inout Plan) -> Void
        var testDescription: String { name }

        init(_ name: String, _ change: @escaping @Sendable (inout Plan) -> Void) {
            self.name = name
            self.change = change
        }
    }

    static let cases = [
        Case("no entry point") { $0.entryPoint = "" },
        Case("no target") { $0.target = "" },
        Case("no position plane") { $0.positionPlanes = 0 },
        Case("negative slots") { $0.slotCount = -1 },
        Case("slot out of range") { $0.buffers[0].slot = 2 },
        Case("negative slot") { $0.buffers[0].slot = -1 },
        Case("negative rows") { $0.buffers[0].rows = Dimension(constant: -1) },
        Case("huge rows") { $0.buffers[0].rows = Dimension(tokens: .max) },
        Case("huge row bytes") { $0.buffers[0].rowBytes = .max },
        Case("row bytes too few") { $0.buffers[0].rowBytes = 31 },
        Case("huge columns") { $0.buffers[0].columns = .max },
        Case("two equal parameters") { $0.parameters[1] = $0.parameters[0] },
        Case("parameter shape") { $0.parameters[0].shape = [.max, 2] },
        Case("two groups of a name") { $0.kvGroups.append($0.kvGroups[0]) },
        Case("no layers") { $0.kvGroups[0].layerCount = 0 },
        Case("huge heads") { $0.kvGroups[0].kvHeadCount = .max },
        Case("huge head") { $0.kvGroups[0].headDim = .max },
        Case("huge block") { $0.kvGroups[0].blockSize = .max },
        Case("negative scales") { $0.kvGroups[0].scheme.scaleBytesPerRow = -1 },
        Case("window") { $0.kvGroups[0].window = 0 },
        Case("no op") { $0.steps[0].op = "" },
        Case("no kernel") { $0.steps[0].variants = [] },
        Case("kernel for no rows") { $0.steps[0].variants[0].maxRows = 0 },
        Case("buffer out of range") { $0.steps[1].operands[0] = .buffer(3, offset: 0, columns: 8) },
        Case("negative buffer") { $0.steps[1].operands[0] = .buffer(-1, offset: 0, columns: 8) },
        Case("columns out of range") {
            $0.steps[1].operands[0] = .buffer(0, offset: 4, columns: 5)
        },
        Case("columns overflow") {
            $0.steps[1].operands[0] = .buffer(0, offset: .max, columns: .max)
        },
        Case("negative columns") { $0.steps[1].results[0] = .buffer(1, offset: 0, columns: -1) },
        Case("parameter out of range") { $0.steps[1].operands[1] = .parameter(2) },
        Case("negative parameter") { $0.steps[1].operands[1] = .parameter(-1) },
        Case("parameter written") { $0.steps[1].results[0] = .parameter(0) },
        Case("input written") { $0.steps[1].results[0] = .input("tokens") },
        Case("input without a name") { $0.steps[0].operands[1] = .input("") },
        Case("group out of range") { $0.steps[1].attributes["group"] = 1 },
        Case("negative group") { $0.steps[1].attributes["group"] = -1 },
        Case("layer out of range") { $0.steps[1].attributes["layer"] = 2 },
        Case("output out of range") { $0.outputs[0].operand = .buffer(9, offset: 0, columns: 0) },
        Case("output nowhere") { $0.outputs[0].operand = .none },
        Case("two outputs of one name") { $0.outputs.append($0.outputs[0]) },
    ]

    @Test func aGoodPlanPasses() throws { try Tiny.plan().validate() }

    @Test(arguments: cases)
    func aBadPlanIsRefused(_ entry: Case) {
        var plan = Tiny.plan()
        entry.change(&plan)
        #expect(code { try plan.validate() } == .corrupt)
    }

    @Test func jsonKeepsEveryBit() throws {
        var plan = Tiny.plan()
        plan.steps[1].attributes["epsilon"] = .float(1e-5)
        plan.steps[1].attributes["third"] = .float(1.0 / 3.0)
        plan.steps[1].attributes["whole"] = .float(2)
        plan.steps[1].attributes["flag"] = true
        let decoded = try JSONDecoder().decode(Plan.self, from: JSONEncoder().encode(plan))
        #expect(decoded == plan)
    }
}
