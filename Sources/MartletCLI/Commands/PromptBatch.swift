// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletBackend

/// Prompts that are answered together: one that fails costs its own answer, not the others'.
struct PromptBatch {
    private(set) var requests: [GenerationRequest] = []
    /// Why prompts have no answer, by their places.
    private var failures: [Int: MartletError] = [:]

    /// Places of the prompts that nothing is known against.
    var runnable: [Int] { requests.indices.filter { failures[$0] == nil } }

    /// Adds a prompt; what is wrong with it is kept for `throwFailure`.
    mutating func add(
        for model: LanguageModel, _ settings: SamplingSettings, prompt: () throws -> [Int32]
    ) throws {
        var request = GenerationRequest(prompt: [], settings: settings)
        do {
            request.prompt = try prompt()
            try model.check(request)
        } catch let error as MartletError {
            let isToken = error.context["index"] != nil
            failures[requests.count] =
                isToken ? error.mending("Give token ids of the model's vocabulary") : error
        }
        requests.append(request)
    }

    /// Notes that a prompt has no answer.
    mutating func fail(_ index: Int, _ error: MartletError) { failures[index] = error }

    /// One answer a prompt, in their order; an empty one in place of those that failed.
    mutating func answers(of model: LanguageModel) throws -> [GenerationOutput] {
        var outputs = [GenerationOutput](repeating: GenerationOutput(), count: requests.count)
        let places = runnable
        for (place, output) in zip(places, try model.generateBatch(places.map { requests[$0] })) {
            outputs[place] = output
            if let failure = output.failure { fail(place, failure) }
        }
        for (place, failure) in failures {
            outputs[place] = GenerationOutput()
            outputs[place].failure = failure
        }
        return outputs
    }

    /// Throws the first prompt's failure; of several prompts it says which ones failed.
    func throwFailure() throws {
        let places = failures.keys.sorted()
        guard let first = places.first, var failure = failures[first] else { return }
        let isCommon =
            places.count == requests.count && Set(failures.values.map(\.message)).count == 1
        if isCommon { throw failure }
        let others = places.dropFirst().prefix(8).map { String($0 + 1) }
        failure.message =
            "prompt \(first + 1) of \(requests.count): \(failure.message)"
            + (others.isEmpty ? "" : "; so failed " + others.joined(separator: ", "))
            + (places.count > 9 ? " and \(places.count - 9) more" : "")
        throw failure
    }
}
