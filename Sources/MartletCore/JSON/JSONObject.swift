// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// The members of a JSON object, in the order of the text.
///
/// Two objects are equal if they have the same members in the same order.
public struct JSONObject: Sendable, Hashable {
    /// A name with its value.
    public struct Member: Sendable, Hashable {
        /// Name, unique in its object.
        public let key: String
        /// Value.
        public var value: JSONValue
    }

    /// All members, in order.
    public private(set) var members: [Member] = []
    /// Index of each key, kept where a scan of all members would be slower.
    private var indexOfKey: [String: Int] = [:]
    private static let scanLimit = 8

    /// An object without members.
    public init() {}

    /// Members in order; of equal names the last value counts.
    public init(_ members: [(String, JSONValue)]) {
        for (key, value) in members { self[key] = value }
    }

    /// Members.
    public var count: Int { members.count }
    /// Names, in order.
    public var keys: [String] { members.map(\.key) }
    /// Values, in the order of the names.
    public var values: [JSONValue] { members.map(\.value) }

    /// Value of a name; setting nil removes the member.
    public subscript(key: String) -> JSONValue? {
        get { index(of: key).map { members[$0].value } }
        set {
            guard let newValue else {
                members.removeAll { $0.key == key }
                indexOfKey.removeAll()
                return
            }
            if let index = index(of: key) {
                members[index].value = newValue
            } else {
                _ = append(key, newValue)
            }
        }
    }

    /// Adds a member at the end.
    ///
    /// - Returns: False, with nothing added, if the name is taken.
    mutating func append(_ key: String, _ value: JSONValue) -> Bool {
        if members.count < Self.scanLimit {
            if members.contains(where: { $0.key == key }) { return false }
        } else {
            if indexOfKey.isEmpty {
                for (index, member) in members.enumerated() { indexOfKey[member.key] = index }
            }
            if let taken = indexOfKey.updateValue(members.count, forKey: key) {
                indexOfKey[key] = taken
                return false
            }
        }
        members.append(Member(key: key, value: value))
        return true
    }

    private func index(of key: String) -> Int? {
        indexOfKey.isEmpty ? members.firstIndex { $0.key == key } : indexOfKey[key]
    }

    /// Whether both hold the same members in the same order.
    public static func == (a: JSONObject, b: JSONObject) -> Bool { a.members == b.members }

    /// Feeds the members.
    public func hash(into hasher: inout Hasher) { hasher.combine(members) }
}
