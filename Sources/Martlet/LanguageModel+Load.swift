// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile
import MartletFormats
import MartletModels
public import MartletRuntime
import MartletTokenizer

extension LanguageModel {
    /// Runs a load to its end; blocks the calling thread.
    ///
    /// - Parameter stop: Ends it early; what was not answered by then counts as cancelled.
    /// - Returns: One record a request in the plan's order, and the seconds that it took in all.
    /// - Throws: `MartletError` for the first request that cannot run; none is started then.
    public func run(
        _ plan: LoadPlan, stop: LoadStop = LoadStop()
    ) throws -> (records: [LoadRecord], duration: Double) {
        try inference.run(plan, stop: stop)
    }

    /// From the next step on, says what steps compute; nil for no more.
    package func observe(_ observer: (@Sendable (StepTrace) -> Void)?) {
        inference.observe(observer)
    }

    /// Most requests in a step.
    package var rowLimit: Int { executor.limits.maxRequests }

    /// Token ids of texts, by the tokenizer of a checkpoint or an engine, without loading weights.
    ///
    /// - Throws: `MartletError` `.unsupported` if it has none.
    package static func textTokens(_ path: String) throws -> (String) -> [Int32] {
        let tokenizer: Tokenizer = try tokenizer(path)
        return { text in
            tokenizer.encode(text, allowSpecial: true, addSpecial: true).map { Int32(clamping: $0) }
        }
    }

    /// Longest context that a checkpoint or an engine was made for, without loading weights.
    ///
    /// - Throws: `MartletError` if it cannot be read.
    package static func longestContext(
        _ path: String, architectures: ModelRegistry = .builtIn
    ) throws -> Int {
        if path.hasSuffix(".martlet") {
            return try EngineFileReader.open(path).manifest.description.sizes.maxContext
        }
        let source = try ModelSource.open(path)
        return try architectures.architecture(named: source.architectures, source.configuration)
            .summary.maxContext
    }
}
