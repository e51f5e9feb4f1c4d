// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletRuntime

extension LanguageModel {
    /// Values of all named outputs for one prompt, computed in one step of its own.
    ///
    /// - Parameter prompt: Token ids, at most a step's tokens.
    /// - Returns: Rows by output name, f32.
    /// - Throws: `MartletError` `.limitExceeded` for a longer prompt, or what the device says.
    package func namedOutputs(_ prompt: [Int32]) throws -> [String: [[Float]]] {
        var request = GenerationRequest(prompt: prompt)
        request.settings.maxTokens = 1
        request.returnsNamedOutputs = true
        let output = try inference.generateBatch([request])[0]
        if let failure = output.failure { throw failure }
        return output.namedOutputs
    }
}
