// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif
import Synchronization

/// Work on all cores, for building engines and checking files; the step loop has its own team.
package enum Parallel {
    /// Cores that this process may use.
    package static let coreCount = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))

    /// Calls the body for `0 ..< count`, several at a time, and returns when all are done.
    ///
    /// - Parameters:
    ///   - count: Pieces of work; each should take far longer than a thread switch.
    ///   - body: Must not depend on the order of calls.
    package static func forEach(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
        let helpers = min(coreCount, count) - 1
        guard helpers > 0 else {
            for index in 0..<count { body(index) }
            return
        }
        let work = Work(count: count, body: body)
        var threads: [pthread_t] = []
        for _ in 0..<helpers {
            let pointer = Unmanaged.passRetained(work).toOpaque()
            #if os(Linux)
            var thread = pthread_t()
            let status = pthread_create(
                &thread, nil,
                { argument in
                    if let argument {
                        Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().run()
                    }
                    return nil
                }, pointer)
            #else
            var thread: pthread_t? = nil
            let status = pthread_create(
                &thread, nil,
                { argument in
                    Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().run()
                    return nil
                }, pointer)
            #endif
            guard status == 0 else {
                Unmanaged<Work>.fromOpaque(pointer).release()
                continue
            }
            #if os(Linux)
            threads.append(thread)
            #else
            if let thread { threads.append(thread) }
            #endif
        }
        work.run()
        for thread in threads { pthread_join(thread, nil) }
    }

    private final class Work: Sendable {
        private let next = Atomic<Int>(0)
        private let count: Int
        private let body: @Sendable (Int) -> Void

        init(count: Int, body: @escaping @Sendable (Int) -> Void) {
            self.count = count
            self.body = body
        }

        func run() {
            while true {
                let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
                if index >= count { return }
                body(index)
            }
        }
    }
}
