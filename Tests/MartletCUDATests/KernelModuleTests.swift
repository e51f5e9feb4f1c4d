// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCUDA
import Testing

@Suite struct KernelModuleTests {
    @Test func identityDependsOnConstantsAndChip() throws {
        let a = KernelModule("plain/rows.cu", ["ACTIVATION": "0", "RESULT": "0"])
        let b = KernelModule("plain/rows.cu", ["ACTIVATION": "0", "RESULT": "1"])
        let chip = KernelArchitecture("sm_90a")
        #expect(try a.identity(chip) == a.identity(chip))
        #expect(try a.identity(chip) != b.identity(chip))
        #expect(try a.identity(chip) != a.identity(KernelArchitecture("sm_80")))
    }
}
