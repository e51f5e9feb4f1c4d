// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Which build of the program runs.
///
/// Architectures, rules, layouts and the compiler itself are code, a user's own among them: what
/// another build compiled may differ in any of them.
enum ProgramIdentity {
    /// Length and time of the program's file; empty where it cannot be found.
    static let line: String = {
        let path = ["/proc/self/exe", CommandLine.arguments.first ?? ""].first(
            where: FileStatus.exists)
        let stamp = path.map(FileStatus.resolved).flatMap(FileStatus.stamp)
        return stamp.map { "program \($0.byteCount) \($0.modified)" } ?? ""
    }()
}
