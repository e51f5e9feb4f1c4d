// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore
package import MartletEngineFile

/// What the compiler asks a catalog about: one op with its types.
package struct KernelQuery: Sendable {
    /// Op name.
    package var op: String
    /// The op's attributes.
    package var attributes: [String: AttributeValue]
    /// Types of the operands; nil where an optional operand is absent.
    package var operands: [TensorType?]
    /// Which operands are parameters, and so may be packed.
    package var isParameter: [Bool]
    /// Types of the results.
    package var results: [TensorType]

    /// Describes a question; see the properties.
    package init(
        op: String, attributes: [String: AttributeValue], operands: [TensorType?],
        isParameter: [Bool], results: [TensorType]
    ) {
        self.op = op
        self.attributes = attributes
        self.operands = operands
        self.isParameter = isParameter
        self.results = results
    }
}

/// What a kernel family costs, affine in T, B, O and L.
package struct KernelCost: Sendable, Hashable {
    /// Bytes read and written that do not stay in a cache.
    package var bytes: Dimension
    /// Multiplications and additions.
    package var operations: Dimension
    /// Operations per second the kernel reaches when it does not wait for memory.
    package var operationsPerSecond: Double

    /// Combines the counts.
    package init(bytes: Dimension, operations: Dimension, operationsPerSecond: Double) {
        self.bytes = bytes
        self.operations = operations
        self.operationsPerSecond = operationsPerSecond
    }

    /// Seconds for given sizes on a device that moves so many bytes a second.
    package func seconds(_ values: Dimension.Values, bytesPerSecond: Double) -> Double {
        max(
            Double(bytes.evaluate(values) ?? .max) / bytesPerSecond,
            Double(operations.evaluate(values) ?? .max) / operationsPerSecond)
    }
}

/// A family's answer to a query.
package enum KernelVerdict: Sendable {
    /// The family computes it at this cost, with operands packed as named (nil: not a parameter, or row-major).
    case accepted(cost: KernelCost, layouts: [String?])
    /// It does not, for this reason.
    case refused(String)
}

/// Kernels of one op that share packed layouts: a descriptor, the unit of selection.
package struct KernelFamily: Sendable {
    /// Name, `<op>_<weight>_<activation>`.
    package var name: String
    /// Op computed.
    package var op: String
    /// Kernels, each for row counts up to its limit.
    package var variants: [PlanVariant]
    /// Whether operands may be columns of wider rows (split results without a copy).
    package var acceptsStridedOperands: Bool
    /// Decides about a query.
    package var evaluate: @Sendable (KernelQuery) -> KernelVerdict

    /// Describes a family; see the properties.
    package init(
        name: String, op: String, variants: [PlanVariant], acceptsStridedOperands: Bool = true,
        evaluate: @escaping @Sendable (KernelQuery) -> KernelVerdict
    ) {
        self.name = name
        self.op = op
        self.variants = variants
        self.acceptsStridedOperands = acceptsStridedOperands
        self.evaluate = evaluate
    }
}

/// What a backend tells the compiler: its kernels, layouts and sizes.
///
/// Needs no device.
package protocol KernelCatalog: Sendable {
    /// Target name stored in plans and engine sections, such as `cpu`.
    var target: String { get }
    /// All families; selection tries those of an op and takes the cheapest over a set of row counts.
    var families: [KernelFamily] { get }
    /// Memory rate that the cost model assumes, bytes per second. A constant, so that builds are reproducible.
    var assumedBytesPerSecond: Double { get }
    /// Tokens of a KV block, or a divisor of it.
    var kvBlockSize: Int { get }
    /// dtypes that the KV cache may have.
    var kvTypes: [DType] { get }
    /// Activation dtypes that buffers may have.
    var activationTypes: [DType] { get }
    /// Activation format for quantized weights when the user names none; nil for exact.
    var defaultActivations: ActivationFormat? { get }

    /// Bytes of one row of a buffer.
    func rowBytes(_ format: ElementFormat, columns: Int) -> Int?
    /// Bytes of a packed weight; nil if the layout does not hold it.
    func packedByteCount(layout: String, format: ElementFormat, shape: [Int]) -> Int?
    /// Rows that a piece of a weight must be a multiple of, so that the packed pieces one after
    /// another are the packed whole; nil if only whole weights can be packed.
    func packedRowUnit(layout: String) -> Int?
    /// Packs a weight into a layout.
    ///
    /// - Throws: `MartletError` `.unsupported` if the layout cannot hold the weight.
    func pack(_ weight: WeightValue, layout: String) throws -> ByteView
    /// Recovers the weight, bit for bit, from its packed form.
    ///
    /// - Throws: `MartletError` `.corrupt` if the bytes do not fit layout, format and shape.
    func unpack(_ bytes: ByteView, layout: String, format: ElementFormat, shape: [Int]) throws
        -> WeightValue
    /// Compiled kernels that an engine carries for its plans, by a name that identifies their content.
    ///
    /// - Throws: `MartletError` if a kernel cannot be compiled.
    func deviceCode(for plans: [Plan]) throws -> [String: ByteView]
}

extension KernelCatalog {
    /// Not known.
    package func packedByteCount(layout: String, format: ElementFormat, shape: [Int]) -> Int? {
        nil
    }
    /// Whole weights only.
    package func packedRowUnit(layout: String) -> Int? { nil }
    /// None: the kernels are part of the program.
    package func deviceCode(for plans: [Plan]) throws -> [String: ByteView] { [:] }
}
