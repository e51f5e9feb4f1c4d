// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Testing

/// `--activations` on an engine that was built with others.
@Suite struct ActivationFlagTests {
    @Test(arguments: [("exact", "int8g64"), ("int8g64", "exact")])
    func anEngineServesBoth(built: String, wanted: String) {
        let program = Program()
        defer { program.remove() }
        let engine = "\(program.folder)/a.martlet"
        let build = program.run(
            [
                "build", Program.model, "-o", engine, "--quantize", "int8", "--activations", built,
            ])
        #expect(build.code == 0, "\(build.error)")
        func logits(_ model: String, _ flags: [String]) -> [UInt8] {
            let run = program.run(
                ["run", model, "--output-logits", "\(program.folder)/l.npy"] + flags
                    + EngineTests.answer)
            #expect(run.code == 0, "\(run.error)")
            return program.bytes("l.npy")
        }
        let direct = ["--quantize", "int8", "--no-cache", "--activations"]
        let expected = logits(Program.model, direct + [wanted])
        #expect(logits(engine, ["--activations", wanted]) == expected && !expected.isEmpty)
        #expect(logits(engine, ["--activations", built]) != expected)
        #expect(logits(engine, []) == logits(Program.model, direct + [built]))
    }

    /// Nothing is coded where weights are plain: the build says so.
    @Test func activationsWithoutCodedWeightsAreTold() {
        let program = Program()
        defer { program.remove() }
        let result = program.run([
            "build", Program.model, "--activations", "int8g64", "-o", program.folder + "/a.martlet",
        ])
        #expect(result.code == 0)
        #expect(
            result.error.contains(
                "warning: activations stay exact: no linear has coded weights\n"), "\(result.error)"
        )
    }

    @Test func inspectHasNothingToPlan() {
        let program = Program()
        defer { program.remove() }
        let engine = "\(program.folder)/a.martlet"
        #expect(program.run(["build", Program.model, "-o", engine]).code == 0)
        let result = program.run(["inspect", engine, "--activations", "exact"])
        #expect(result.code == 2 && result.error.contains("--activations cannot change it"))
    }

    /// Rules of a device that is not asked for are unknown, and not offered.
    @Test func rulesOfOtherDevicesAreUnknown() {
        let program = Program()
        defer { program.remove() }
        let inspect = ["inspect", Program.model, "--disable-rule"]
        let result = program.run(inspect + ["norm-gated-linear"])
        #expect(result.code == 2 && result.error.contains("no rule named 'norm-gated-linear'"))
        let all = program.run(inspect + ["?"])
        #expect(all.error.contains("dead-code") && !all.error.contains("norm-gated-linear"))
        #expect(program.run(inspect + ["dead-code"]).code == 0)
    }
}
