// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import MartletCore
import MartletEngineFile
import Testing

@Suite struct EngineKVGroupsTests {
    private func group(_ name: String, layers: Int = 2) -> KVGroup {
        KVGroup(
            name: name, layerCount: layers, kvHeadCount: 1, headDim: 8,
            scheme: KVScheme(dtype: .f32))
    }

    @Test func groupsOfOneNameAreOne() throws {
        let joined = try EngineKVGroups([
            ("decode", [group("self"), group("cross", layers: 3)]),
            ("encode", [group("cross", layers: 3), group("encoder")]),
            ("embed", [group("self")]), ("plain", []),
        ])
        #expect(joined.groups.map(\.name) == ["self", "cross", "encoder"])
        #expect(joined.places == [[0, 1], [1, 2], [0], []])
    }

    @Test func differentDescriptionsAreNamed() {
        let error = #expect(throws: MartletError.self) {
            try EngineKVGroups([("decode", [group("self")]), ("embed", [group("self", layers: 1)])])
        }
        #expect(error?.code == .corrupt && error?.mend != nil)
        for part in ["'decode'", "'embed'", "'self'", "layers=2", "layers=1"] {
            #expect(error?.message.contains(part) == true, "\(part)")
        }
    }

    /// Engines that were written before groups had names are read: their only group has the usual one.
    @Test func namelessGroupsAreRead() throws {
        let text = """
            {"blockSize":16,"headDim":8,"kind":"selfAttention","kvHeadCount":1,"layerCount":2,
            "scheme":{"dtype":"f32","scaleBytesPerRow":0}}
            """
        let read = try JSONDecoder().decode(KVGroup.self, from: Data(text.utf8))
        #expect(read == group("self"))
        let own = group("cross")
        #expect(
            try JSONDecoder().decode(KVGroup.self, from: JSONEncoder().encode(own)) == own)
    }
}
