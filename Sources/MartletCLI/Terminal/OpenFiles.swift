// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// How many files the program may have open at once.
enum OpenFiles {
    /// Standard streams, signals, the event queue of the system's dispatch library, an engine.
    private static let least: rlim_t = 16
    /// Many shards and connections; systems' defaults are about as many.
    private static let wanted: rlim_t = 1024

    /// How many this program has open now; 0 where the system does not tell.
    static var count: Int {
        guard let folder = opendir("/proc/self/fd") else { return 0 }
        defer { closedir(folder) }
        var names = 0
        while readdir(folder) != nil { names += 1 }
        // Two names are the folder and the one above, and one is that of this look.
        return names - 3
    }

    /// Takes what the system allows up to what is wanted.
    ///
    /// - Throws: `MartletError` `.limitExceeded` where so few are allowed that the runtime library
    ///   could not even start.
    static func raiseLimit() throws {
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0, limit.rlim_cur < wanted else { return }
        limit.rlim_cur = min(wanted, limit.rlim_max)
        _ = setrlimit(resource, &limit)
        guard getrlimit(resource, &limit) == 0, limit.rlim_cur < least else { return }
        throw MartletError(
            .limitExceeded, "\(limit.rlim_cur) open files are allowed, but \(least) are needed",
            mend: "Raise the limit: ulimit -n \(wanted)")
    }
}

#if canImport(Glibc)
private let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
#else
private let resource = RLIMIT_NOFILE
#endif
