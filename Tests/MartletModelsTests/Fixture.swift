// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import MartletModels
import MartletTestSupport
import Testing

/// Files under Tests/Fixtures.
enum Fixture {
    static func path(_ name: String) -> String {
        let source = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        return source.dropLast(2).joined(separator: "/") + "/Fixtures/" + name
    }

    /// A fixture's object, with some members replaced; nil removes one.
    static func object(_ name: String, _ edits: [(String, JSONValue?)] = []) throws -> JSONObject {
        let value = try JSONValue.parse(MappedFile.map(path(name)), name: name)
        var object = try #require(value.object)
        for (key, value) in edits { object[key] = value }
        return object
    }

    /// The architecture that a configuration names.
    static func architecture(_ config: JSONObject) throws -> any ModelArchitecture {
        try ModelRegistry.builtIn.architecture(
            named: config["architectures"]?.array?.compactMap(\.string) ?? [],
            ConfigurationReader(config, origin: "config.json"))
    }
}

/// Expects logits of another implementation, within `Tolerance.exactLogits`: of the CPU's plan in
/// prefill and in decoding, and of the reference interpreter.
func expectGolden(
    _ name: String, file: String? = nil, at location: SourceLocation = #_sourceLocation
) async throws {
    let golden = try GoldenModel(Fixture.path(name))
    let model = try golden.compile(file)
    let gaps = [
        try await golden.prefillGap(model), try await golden.decodeGap(model),
        try golden.referenceGap(file),
    ]
    #expect(gaps.max() ?? .infinity < Tolerance.exactLogits, "\(gaps)", sourceLocation: location)
}

/// Expects that a configuration is refused with a message that names the key.
func expectRefusal(
    _ fixture: String, _ edits: [(String, JSONValue?)], naming text: String,
    at location: SourceLocation = #_sourceLocation
) throws {
    let config = try Fixture.object(fixture, edits)
    let error = #expect(throws: MartletError.self, sourceLocation: location) {
        try Fixture.architecture(config)
    }
    #expect(error?.code == .unsupported, sourceLocation: location)
    #expect(
        error?.description.contains(text) == true, "\(text): \(error?.description ?? "")",
        sourceLocation: location)
}
