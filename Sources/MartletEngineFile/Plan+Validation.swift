// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension Plan {
    /// Largest factor, size or count in a plan; products of two of them fit an `Int`.
    private static let sizeLimit = 1 << 31
    /// Most buffers, parameters or steps.
    private static let countLimit = 1 << 20

    /// Checks every index and size, so that executors need not.
    ///
    /// Row counts of buffers under given T, B, O and L may still exceed `Int`; `Dimension.evaluate`
    /// reports that at load.
    ///
    /// - Throws: `MartletError` `.corrupt` naming the step or buffer and the wrong number.
    package func validate() throws {
        try require(!entryPoint.isEmpty && !target.isEmpty, "lacks an entry point or a target")
        try require((1...4).contains(positionPlanes), "has \(positionPlanes) position planes")
        for (name, count) in [
            ("buffers", buffers.count), ("parameters", parameters.count), ("steps", steps.count),
            ("slots", slotCount), ("outputs", outputs.count),
        ] {
            try require((0...Self.countLimit).contains(count), "has \(count) \(name)")
        }
        for (index, buffer) in buffers.enumerated() { try validate(buffer, index) }
        try validateParameters()
        var groupNames: Set<String> = []
        for (index, group) in kvGroups.enumerated() {
            try validate(group, index)
            try require(
                groupNames.insert(group.name).inserted, "has two KV groups '\(group.name)'")
        }
        for (index, step) in steps.enumerated() { try validate(step, index) }
        var names: Set<String> = []
        for output in outputs {
            try require(names.insert(output.name).inserted, "has two outputs '\(output.name)'")
            try validate(output.operand, in: "output '\(output.name)'", isResult: true)
            try require(output.operand != .none, "output '\(output.name)' lies nowhere")
        }
    }

    private func validate(_ buffer: PlanBuffer, _ index: Int) throws {
        let rows = buffer.rows
        let sizes = [
            rows.constant, rows.tokens, rows.requests, rows.logitRows, rows.context,
            buffer.columns, buffer.rowBytes,
        ]
        for size in sizes {
            try require(
                (0...Self.sizeLimit).contains(size),
                "buffer \(index) has size \(size), outside 0...\(Self.sizeLimit)")
        }
        try require(
            (0..<slotCount).contains(buffer.slot),
            "buffer \(index) is in slot \(buffer.slot) of \(slotCount)")
        if let type = DType(rawValue: buffer.format) {
            try require(
                buffer.rowBytes >= buffer.columns * type.byteCount,
                "buffer \(index) has \(buffer.rowBytes) bytes a row for \(buffer.columns) \(type)")
        }
    }

    private func validateParameters() throws {
        var seen: Set<PlanParameter> = []
        for parameter in parameters {
            try require(seen.insert(parameter).inserted, "has two parameters \(parameter)")
            try require(
                parameter.shape.count <= 8 && TensorData.elementCount(parameter.shape) != nil,
                "parameter '\(parameter.name)' has shape \(parameter.shape)")
        }
    }

    private func validate(_ group: KVGroup, _ index: Int) throws {
        // The limits keep bytes per block within Int.
        for (value, limit, name) in [
            (group.layerCount, 1 << 16, "layers"), (group.kvHeadCount, 1 << 14, "heads"),
            (group.headDim, 1 << 14, "elements a head"),
            (group.blockSize, 1 << 12, "tokens a block"),
        ] {
            try require(
                (1...limit).contains(value),
                "KV group \(index) has \(value) \(name), outside 1...\(limit)")
        }
        try require(
            (0...1 << 14).contains(group.scheme.scaleBytesPerRow),
            "KV group \(index) has \(group.scheme.scaleBytesPerRow) bytes of scales")
        if let window = group.window {
            try require(window > 0, "KV group \(index) has a window of \(window)")
        }
    }

    private func validate(_ step: PlanStep, _ index: Int) throws {
        let place = "step \(index) (\(step.op))"
        try require(!step.op.isEmpty && !step.family.isEmpty, "\(place) lacks an op or a family")
        try require(!step.variants.isEmpty, "\(place) has no kernel")
        for variant in step.variants {
            try require(
                !variant.kernel.isEmpty && variant.maxRows.map { $0 > 0 } != false,
                "\(place) has a kernel '\(variant.kernel)' for \(variant.maxRows ?? 0) rows")
        }
        for operand in step.operands { try validate(operand, in: place, isResult: false) }
        for result in step.results { try validate(result, in: place, isResult: true) }
        for name in ["group", "layer"] {
            guard let value = step.attributes[name]?.int else { continue }
            try require(value >= 0, "\(place) names \(name) \(value)")
        }
        if let group = step.attributes["group"]?.int {
            try require(
                kvGroups.indices.contains(group),
                "\(place) uses KV group \(group) of "
                    + "\(kvGroups.count)")
            if let layer = step.attributes["layer"]?.int {
                try require(
                    layer < kvGroups[group].layerCount,
                    "\(place) uses layer \(layer) of "
                        + "\(kvGroups[group].layerCount) in KV group \(group)")
            }
        }
    }

    private func validate(_ operand: PlanOperand, in place: String, isResult: Bool) throws {
        switch operand {
        case .buffer(let index, let offset, let columns):
            try require(
                buffers.indices.contains(index), "\(place) uses buffer \(index) of \(buffers.count)"
            )
            try require(
                isInside(offset, columns, limit: buffers[index].columns),
                "\(place) uses columns \(offset) and \(columns) more of buffer \(index), which has "
                    + "\(buffers[index].columns)")
        case .parameter(let index):
            try require(!isResult, "\(place) writes parameter \(index)")
            try require(
                parameters.indices.contains(index),
                "\(place) uses parameter \(index) of \(parameters.count)")
        case .input(let name):
            try require(!isResult, "\(place) writes input '\(name)'")
            try require(!name.isEmpty, "\(place) uses an input without a name")
        case .none:
            break
        }
    }

    private func require(_ condition: Bool, _ what: @autoclosure () -> String) throws {
        guard !condition else { return }
        throw MartletError(
            .corrupt, "plan '\(entryPoint)' for '\(target)': \(what())", mend: EngineHeader.rebuild)
    }
}
