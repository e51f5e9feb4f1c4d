// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletRuntime
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

@Suite struct MailboxTests {
    @Test(arguments: [Duration.zero, .seconds(60)])
    func givesWhatIsThere(spin: Duration) {
        let mailbox = Mailbox<Int>()
        mailbox.send(1)
        mailbox.send([2, 3])
        var received = [0]
        mailbox.receive(into: &received, spin: spin)
        #expect(received == [1, 2, 3])
    }

    /// The reader looks for a minute, or has slept for long: it gets the message either way.
    @Test(arguments: [Duration.zero, .milliseconds(1), .seconds(60)])
    func getsWhatComesLater(spin: Duration) throws {
        let mailbox = Mailbox<Int>()
        var received: [Int] = []
        for message in 0..<20 {
            let isStarted = DetachedThread.start {
                usleep(5_000)
                mailbox.send(message)
            }
            try #require(isStarted)
            mailbox.receive(into: &received, spin: spin)
            #expect(received == [message])
        }
    }

    @Test func looksUntilItHoldsOrTimeIsUp() {
        let start = ContinuousClock.now
        #expect(!SpinWait.look(for: .milliseconds(20)) { false })
        #expect(ContinuousClock.now - start >= .milliseconds(20))
        var looks = 0
        let holds = SpinWait.look(for: .seconds(60)) {
            looks += 1
            return looks == 3
        }
        #expect(holds && looks == 3)
    }
}
