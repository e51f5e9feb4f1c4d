// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore

/// Typed access to a model's `config.json`, with errors that name key, value and file.
public struct ConfigurationReader: Sendable {
    /// The whole object.
    public let json: JSONObject
    /// Where it came from, for messages.
    public let origin: String
    /// How the file spells keys that it calls otherwise, for messages.
    private let spellings: [String: String]

    /// Wraps an object.
    ///
    /// - Parameter spellings: What the file itself calls some of the keys.
    public init(_ json: JSONObject, origin: String, spellings: [String: String] = [:]) {
        self.json = json
        self.origin = origin
        self.spellings = spellings
    }

    /// A key as the file spells it, in quotation marks.
    private func quoted(_ key: String) -> String { "'\(spellings[key] ?? key)'" }

    /// An error about this configuration, for an architecture to throw.
    ///
    /// - Parameter message: Names the key, its value and what is supported.
    public func failure(_ message: String) -> MartletError {
        MartletError(
            .unsupported, "\(origin): \(message)",
            mend: "Correct the key, or use a model that does without it",
            context: ["file": origin])
    }

    private func present(_ key: String) -> JSONValue? {
        guard let value = json[key], !value.isNull else { return nil }
        return value
    }

    /// An integer of at least 1, or a default where the key is absent or null.
    ///
    /// - Throws: `MartletError` `.unsupported` if it is missing without default, or no such integer.
    public func int(_ key: String, default fallback: Int? = nil, limit: Int = 1 << 28) throws -> Int
    {
        guard let value = present(key) else {
            guard let fallback else { throw failure("\(quoted(key)) is missing") }
            return fallback
        }
        guard let number = value.int, number >= 1, number <= limit else {
            throw failure(
                "\(quoted(key)) is \(value.serialized()), not an integer in 1 ... \(limit)")
        }
        return number
    }

    /// A number, or a default where the key is absent or null.
    ///
    /// - Throws: `MartletError` `.unsupported` if it is missing without default, or no number.
    public func double(_ key: String, default fallback: Double? = nil) throws -> Double {
        guard let value = present(key) else {
            guard let fallback else { throw failure("\(quoted(key)) is missing") }
            return fallback
        }
        guard let number = value.double, number.isFinite else {
            throw failure("\(quoted(key)) is \(value.serialized()), not a number")
        }
        return number
    }

    /// A number above 0, or a default where the key is absent or null.
    ///
    /// - Throws: `MartletError` `.unsupported` if it is missing without default, or not above 0.
    public func positive(_ key: String, default fallback: Double? = nil) throws -> Double {
        let number = try double(key, default: fallback)
        guard number > 0 else { throw failure("\(quoted(key)) is \(number), not a number above 0") }
        return number
    }

    /// A truth value, or a default where the key is absent or null.
    ///
    /// - Throws: `MartletError` `.unsupported` if it is something else.
    public func bool(_ key: String, default fallback: Bool?) throws -> Bool {
        guard let value = present(key) else {
            guard let fallback else {
                throw failure("\(quoted(key)) is missing: set it to true or false")
            }
            return fallback
        }
        guard let flag = value.bool else {
            throw failure("\(quoted(key)) is \(value.serialized()), not true or false")
        }
        return flag
    }

    /// An integer of at least 0, or a default where the key is absent or null.
    ///
    /// - Throws: `MartletError` `.unsupported` if it is no such integer.
    public func count(_ key: String, default fallback: Int) throws -> Int {
        present(key)?.int == 0 ? 0 : try int(key, default: fallback)
    }

    /// A text out of a closed set, or a default where the key is absent or null.
    ///
    /// - Throws: `MartletError` `.unsupported` naming what is supported.
    public func word(
        _ key: String, of allowed: [String], default fallback: String?
    ) throws -> String {
        guard let value = present(key) else {
            guard let fallback else {
                throw failure(
                    "\(quoted(key)) is missing: set it to \(allowed.joined(separator: " or "))")
            }
            return fallback
        }
        guard let word = value.string, allowed.contains(word) else {
            throw failure(
                "\(quoted(key)) is \(value.serialized()), "
                    + "supported: \(allowed.joined(separator: ", "))")
        }
        return word
    }

    /// A list of texts out of a closed set; nil where the key is absent or null.
    ///
    /// - Parameter count: How many there must be.
    /// - Throws: `MartletError` `.unsupported` naming what is supported.
    public func words(_ key: String, of allowed: [String], count: Int) throws -> [String]? {
        guard let value = present(key) else { return nil }
        let words = value.array?.compactMap(\.string) ?? []
        guard words.count == count, value.array?.count == count else {
            throw failure("\(quoted(key)) is no list of \(count) words")
        }
        if let other = words.first(where: { !allowed.contains($0) }) {
            throw failure(
                "\(quoted(key)) has '\(other)', supported: \(allowed.joined(separator: ", "))")
        }
        return words
    }

    /// A nested object; nil where the key is absent or null.
    ///
    /// - Throws: `MartletError` `.unsupported` if it is something else.
    public func object(_ key: String) throws -> ConfigurationReader? {
        guard let value = present(key) else { return nil }
        guard let object = value.object else { throw failure("\(quoted(key)) is not an object") }
        return ConfigurationReader(object, origin: "\(origin): \(key)")
    }

    /// A list of numbers; nil where the key is absent or null.
    ///
    /// - Throws: `MartletError` `.unsupported` if it is something else.
    public func doubles(_ key: String) throws -> [Double]? {
        guard let value = present(key) else { return nil }
        guard let list = value.array, case let numbers = list.compactMap(\.double),
            numbers.count == list.count
        else { throw failure("\(quoted(key)) is not a list of numbers") }
        return numbers
    }

    /// Refuses keys that would change the mathematics if they were ignored.
    ///
    /// - Parameters:
    ///   - keys: What must not be set to anything but null or false.
    ///   - neutral: Numbers that change nothing.
    /// - Throws: `MartletError` `.unsupported` naming the first that is set.
    public func refuse(_ keys: [String], unless neutral: [Double] = []) throws {
        for key in keys {
            guard let value = present(key), value != .bool(false) else { continue }
            if let number = value.double, neutral.contains(number) { continue }
            throw failure("\(quoted(key)) is \(value.serialized()), which is not supported")
        }
    }
}
