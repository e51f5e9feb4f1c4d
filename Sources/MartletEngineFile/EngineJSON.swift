// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import MartletCore

/// JSON as engine files hold it: sorted keys, so that equal values have equal bytes.
enum EngineJSON {
    static func encode(_ value: some Encodable) throws -> ByteView {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return ByteView(Array(try encoder.encode(value)))
        } catch {
            throw MartletError(.internalError, "cannot write engine JSON", cause: error)
        }
    }

    /// Decodes; nesting is limited by the decoder (512 levels).
    static func decode<Value: Decodable>(
        _ type: Value.Type, from bytes: ByteView, part: String
    ) throws -> Value {
        do {
            let data = bytes.withUnsafeBytes { Data($0) }
            return try JSONDecoder().decode(type, from: data)
        } catch {
            throw MartletError(
                .corrupt, "engine \(part) cannot be read", mend: EngineHeader.rebuild, cause: error)
        }
    }
}
