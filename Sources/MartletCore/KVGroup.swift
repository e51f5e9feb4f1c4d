// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// How keys and values are stored in the cache.
///
/// `dtype` is the element type. Quantized caches add scale planes; `scaleBytesPerRow` is the space
/// one token takes per layer and KV head for the scales of its key and value (0 for float types).
public struct KVScheme: Sendable, Hashable, Codable {
    /// Element type.
    public var dtype: DType
    /// Bytes of scales per token, layer and KV head.
    public var scaleBytesPerRow: Int

    /// Describes a scheme.
    public init(dtype: DType, scaleBytesPerRow: Int = 0) {
        self.dtype = dtype
        self.scaleBytesPerRow = scaleBytesPerRow
    }
}

/// Layers whose keys and values share block tables: same size, same window, same purpose.
public struct KVGroup: Sendable, Hashable, Codable {
    /// Whose tokens the group holds.
    public enum Kind: String, Sendable, Hashable, Codable {
        /// The request's own tokens.
        case selfAttention
        /// An encoder's tokens.
        case crossAttention
    }

    /// Name within the engine: entry points that name a group alike share it.
    public var name: String
    /// Layers in the group.
    public var layerCount: Int
    /// KV heads of a layer.
    public var kvHeadCount: Int
    /// Elements of a head.
    public var headDim: Int
    /// Storage of keys and values.
    public var scheme: KVScheme
    /// Tokens a query can see back, itself included; nil for all.
    ///
    /// Blocks wholly outside may be freed.
    public var window: Int?
    /// Whose tokens the group holds.
    public var kind: Kind
    /// Tokens of one block, a multiple of the backend's block.
    public var blockSize: Int

    /// Describes a group; see the properties.
    public init(
        name: String = KVGroup.defaultName, layerCount: Int, kvHeadCount: Int, headDim: Int,
        scheme: KVScheme, window: Int? = nil,
        kind: Kind = .selfAttention, blockSize: Int = 16
    ) {
        self.name = name
        self.layerCount = layerCount
        self.kvHeadCount = kvHeadCount
        self.headDim = headDim
        self.scheme = scheme
        self.window = window
        self.kind = kind
        self.blockSize = blockSize
    }

    /// Name of a group that was given none.
    public static let defaultName = "self"

    /// Reads a group; one that was written before groups had names has the default one.
    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decodeIfPresent(String.self, forKey: .name) ?? Self.defaultName
        layerCount = try values.decode(Int.self, forKey: .layerCount)
        kvHeadCount = try values.decode(Int.self, forKey: .kvHeadCount)
        headDim = try values.decode(Int.self, forKey: .headDim)
        scheme = try values.decode(KVScheme.self, forKey: .scheme)
        window = try values.decodeIfPresent(Int.self, forKey: .window)
        kind = try values.decode(Kind.self, forKey: .kind)
        blockSize = try values.decode(Int.self, forKey: .blockSize)
    }

    /// Bytes of one token over all layers of the group, scales included.
    public var bytesPerToken: Int {
        layerCount * kvHeadCount * (2 * headDim * scheme.dtype.byteCount + scheme.scaleBytesPerRow)
    }

    /// Bytes of one block.
    public var bytesPerBlock: Int { bytesPerToken * blockSize }
}

extension KVGroup: CustomStringConvertible {
    /// The form of graph text, such as `layers=2 heads=3 dim=64 dtype=f32 block=16`.
    public var description: String {
        var text = name == Self.defaultName ? "" : "name=\(name) "
        text += "layers=\(layerCount) heads=\(kvHeadCount) dim=\(headDim)"
        text += " dtype=\(scheme.dtype.rawValue)"
        if scheme.scaleBytesPerRow != 0 { text += " scales=\(scheme.scaleBytesPerRow)" }
        if let window { text += " window=\(window)" }
        if kind != .selfAttention { text += " kind=\(kind.rawValue)" }
        return text + " block=\(blockSize)"
    }
}
