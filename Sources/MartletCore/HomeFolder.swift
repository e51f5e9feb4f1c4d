// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Where the user's own files are.
package enum HomeFolder {
    /// The folder that the system's list of users names, for processes without `HOME`; nil if it has none.
    ///
    /// Python's `expanduser` looks there too, so caches that programs share are found.
    package static var ofUser: String? {
        guard let entry = getpwuid(getuid()), let folder = entry.pointee.pw_dir else { return nil }
        let path = String(cString: folder)
        return path.isEmpty ? nil : path
    }
}
