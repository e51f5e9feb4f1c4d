// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Testing

/// The programs of Examples/ do what they show.
@Suite struct ExampleTests {
    @Test func ownModelsRuleIsAppliedAndChangesNoAnswer() throws {
        let program = Program()
        defer { program.remove() }
        let result = program.run([], shell: "exec '\(Program.products)/OwnModel'")
        #expect(result.code == 0, "\(result.error)")
        let lines = result.output.split(separator: "\n").map(String.init)
        // Two branches of two layers.
        #expect(lines.first == "merge-scales: applied 4 times")
        let answers = lines.dropFirst().map { $0.split(separator: " ").suffix(8) }
        #expect(answers.count == 2 && answers[0] == answers[1])
        #expect(answers[0].allSatisfy { Int($0).map { 0..<100 ~= $0 } == true }, "\(lines)")
    }
}
