// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Functions that every template sees.
enum JinjaGlobals {
    static var functions: [String: JinjaValue] {
        var table: [String: JinjaValue] = [:]
        func add(
            _ name: String, _ body: @escaping (JinjaRenderer, JinjaArguments) throws -> JinjaValue
        ) {
            table[name] = .callable(JinjaCallable(name, body))
        }
        add("range") { _, arguments in try range(arguments) }
        add("namespace") { renderer, arguments in .namespace(try dict(renderer, arguments)) }
        add("dict") { renderer, arguments in .dict(try dict(renderer, arguments)) }
        add("cycler") { _, arguments in
            guard !arguments.positional.isEmpty else {
                throw JinjaFailure.error("at least one item has to be provided")
            }
            return .cycler(JinjaCycler(arguments.positional))
        }
        add("joiner") { _, arguments in
            let joiner = JinjaJoiner(arguments.value(0, "sep") ?? .text(", "))
            return .callable(JinjaCallable("joiner") { _, _ in joiner.next() })
        }
        add("lipsum") { _, _ in throw JinjaFailure.error("lipsum is not supported") }
        add("raise_exception") { _, arguments in
            throw JinjaFailure.error(
                try arguments.value(0, "message")?.printed().string ?? "raised an exception")
        }
        return table
    }

    private static func range(_ arguments: JinjaArguments) throws -> JinjaValue {
        let numbers = try arguments.positional.map { value in
            guard let number = value.integer else {
                throw JinjaFailure.error(
                    "'\(value.typeName)' object cannot be interpreted as an integer")
            }
            return number
        }
        guard (1...3).contains(numbers.count) else {
            throw JinjaFailure.error("range expected 1 to 3 arguments, got \(numbers.count)")
        }
        let start = numbers.count == 1 ? 0 : numbers[0]
        let stop = numbers.count == 1 ? numbers[0] : numbers[1]
        return .range(try JinjaRange(start, stop, numbers.count == 3 ? numbers[2] : 1))
    }

    private static func dict(_ renderer: JinjaRenderer, _ arguments: JinjaArguments) throws
        -> JinjaDict
    {
        let dict = JinjaDict()
        if case .dict(let source)? = arguments.positional.first {
            for (key, value) in zip(source.keys, source.values) {
                dict.set(key, try renderer.hashed(key), value)
            }
        } else if let pairs = arguments.positional.first {
            for pair in try pairs.elements() {
                let parts = try pair.elements()
                guard parts.count == 2 else { throw JinjaFailure.error("dict expects pairs") }
                dict.set(parts[0], try renderer.hashed(parts[0]), parts[1])
            }
        }
        for (name, value) in arguments.named { dict.set(name, value) }
        return dict
    }
}
