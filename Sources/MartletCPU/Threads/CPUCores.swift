// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Which cores this process may use, as the kernel's text files tell.
package enum CPUCores {
    /// Logical cores that the process may run on, ascending.
    package static var available: [Int] {
        guard let status = text("/proc/self/status") else { return [0] }
        let key = "Cpus_allowed_list:"
        for line in status.split(separator: "\n") where line.hasPrefix(key) {
            let cores = list(line.dropFirst(key.count))
            if !cores.isEmpty { return cores }
        }
        return [0]
    }

    /// One logical core of each physical core that is available: the default for threads.
    package static var physical: [Int] {
        var seen: Set<Int> = []
        return available.filter { core in
            let path = "/sys/devices/system/cpu/cpu\(core)/topology/thread_siblings_list"
            let siblings = text(path).map { list(Substring($0)) } ?? []
            return seen.insert(siblings.first ?? core).inserted
        }
    }

    /// Reads a list such as `0-3,8`.
    static func list(_ text: Substring) -> [Int] {
        var cores: [Int] = []
        for part in text.split(whereSeparator: { $0 == "," || $0.isWhitespace }) {
            let ends = part.split(separator: "-").map { Int($0) ?? -1 }
            guard let first = ends.first, let last = ends.last, first >= 0, last >= first,
                last < 1 << 16
            else { return [] }
            cores.append(contentsOf: first...last)
        }
        return cores
    }

    private static func text(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 8192)
        let count = read(descriptor, &bytes, bytes.count)
        guard count > 0 else { return nil }
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }
}
