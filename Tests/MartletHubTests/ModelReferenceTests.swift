// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import Testing

@Suite struct ModelReferenceTests {
    private static let smollm2 = ModelAlias.builtIn[0]

    @Test(arguments: [
        ("smollm2", ModelReference.alias(smollm2)),
        ("SmolLM2", .alias(smollm2)),
        ("modelscope:a/b", .repository(HubRepository("a/b", site: .modelScope), nil)),
        (
            "modelscope:a/b@v2:q8_0",
            .repository(
                HubRepository("a/b", site: .modelScope, revision: "v2"), .quantization("q8_0"))
        ),
        ("a/b", .repository(HubRepository("a/b"), nil)),
        ("hf:a/b", .repository(HubRepository("a/b"), nil)),
        ("a/b:Q4_1", .repository(HubRepository("a/b"), .quantization("Q4_1"))),
        ("hf.co/a/b:x.gguf", .repository(HubRepository("a/b"), .file("x.gguf"))),
        (
            "https://huggingface.co/a/b@v1:sub/x.gguf",
            .repository(HubRepository("a/b", revision: "v1"), .file("sub/x.gguf"))
        ),
        ("x.gguf", .path("x.gguf")),
        ("dir/x.GGUF", .path("dir/x.GGUF")),
        ("./a/b", .path("./a/b")),
        ("/a/b:c", .path("/a/b:c")),
        ("~/m.gguf", .path("/home/u/m.gguf")),
        ("m.martlet", .path("m.martlet")),
    ]) func reads(text: String, wanted: ModelReference) throws {
        #expect(try ModelReference(text, home: "/home/u") == wanted)
    }

    @Test(arguments: [
        "a/b", "a/b:Q4_1", "a/b@v1:x.gguf", "smollm2", "modelscope:a/b", "modelscope:a/b@v:x.gguf",
        "/x/y.gguf",
    ]) func describesItself(text: String) throws {
        #expect(try ModelReference(text).description == text)
    }

    @Test(arguments: [
        "", "a/b/c:Q4", "a//b", "-a/b", "a/b.:Q4", "a/b:../x.gguf",
        "a/b@../../x", "a/b@:x", "a/b:", "modelscope:ab", "modelscope:a/b@x/y", "a/b:/etc/passwd",
        "a--b/c", "a\0b",
    ]) func refuses(text: String) {
        #expect(code { try ModelReference(text) } == .invalidArgument)
    }

    @Test func suggestsTheNearestAlias() {
        let error = failure { try ModelReference("smolm2") }
        #expect(error?.code == .notFound)
        #expect(error?.context["nearest"] == "smollm2")
        #expect(error?.description.contains("Did you mean 'smollm2'?") == true)
        let far = failure { try ModelReference("qwertyuiop") }
        #expect(far?.context["nearest"] == nil)
        #expect(far?.description.contains("smollm2") == true)
    }

    @Test(arguments: [
        ("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 1), ("A", "a", 0),
        ("smolm2", "smollm2", 1),
    ]) func measuresDistance(left: String, right: String, wanted: Int) {
        #expect(EditDistance.between(left, right) == wanted)
        #expect(EditDistance.between(right, left) == wanted)
    }
}

/// The Martlet error a closure throws.
func failure<Result>(_ body: () throws -> Result) -> MartletError? {
    do {
        _ = try body()
        return nil
    } catch {
        return error as? MartletError
    }
}

/// The code of the Martlet error a closure throws.
func code<Result>(_ body: () throws -> Result) -> MartletError.Code? { failure(body)?.code }
