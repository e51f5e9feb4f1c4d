// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletRuntime

/// Lets a caller's thread wait for one step.
final class Completion: Sendable {
    private let mailbox = Mailbox<MartletError?>()

    /// Notes the end of the step.
    func finish(_ error: MartletError?) { mailbox.send(error) }

    /// Blocks until the step has ended.
    func wait() -> MartletError? {
        var received: [MartletError?] = []
        mailbox.receive(into: &received)
        return received.first ?? nil
    }
}
