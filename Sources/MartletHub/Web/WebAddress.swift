// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// An `http` or `https` address, split as far as redirects and tokens need it.
package struct WebAddress: Sendable, Hashable, CustomStringConvertible {
    /// `http` or `https`.
    package let scheme: String
    /// Host name, lower case, or a bracketed address.
    package let host: String
    /// Port, the scheme's own if none is written.
    package let port: Int
    /// Path with query, starting with a slash.
    package let path: String

    /// Reads an absolute address.
    ///
    /// - Throws: `MartletError` `.invalidArgument`.
    package init(_ text: String) throws {
        let lower = text.prefix(8).lowercased()
        let scheme =
            lower.hasPrefix("https://") ? "https" : lower.hasPrefix("http://") ? "http" : ""
        let rest = text.dropFirst(scheme.count + 3)
        let authority = rest.prefix { $0 != "/" && $0 != "?" && $0 != "#" }
        guard !scheme.isEmpty, !authority.contains("@"),
            text.utf8.allSatisfy({ $0 > 32 && $0 < 127 }),
            let (host, port) = Self.splitAuthority(
                String(authority), standardPort: scheme == "https" ? 443 : 80)
        else {
            throw MartletError(
                .invalidArgument, "'\(text.prefix(200))' is no http or https address",
                mend: "HF_ENDPOINT looks like https://host")
        }
        self.scheme = scheme
        self.host = host
        self.port = port
        let path = rest.dropFirst(authority.count).prefix { $0 != "#" }
        self.path = path.hasPrefix("/") ? String(path) : "/\(path)"
    }

    /// The address a `Location` header leads to from here.
    ///
    /// - Throws: `MartletError` `.network` if it is malformed or would leave TLS.
    package func following(_ location: String) throws -> WebAddress {
        let target: WebAddress
        do {
            let lower = location.prefix(8).lowercased()
            if lower.hasPrefix("http://") || lower.hasPrefix("https://") {
                target = try WebAddress(location)
            } else if location.hasPrefix("//") {
                target = try WebAddress("\(scheme):\(location)")
            } else if location.hasPrefix("/") {
                target = try WebAddress(origin + location)
            } else {
                let folder = path.prefix { $0 != "?" }
                let end = folder.lastIndex(of: "/") ?? folder.startIndex
                target = try WebAddress("\(origin)\(folder[..<end])/\(location)")
            }
        } catch {
            throw MartletError(
                .network, "\(host) redirects to a malformed address '\(location.prefix(200))'")
        }
        guard scheme != "https" || target.scheme == "https" else {
            throw MartletError(.network, "\(host) redirects from https to http, which is refused")
        }
        return target
    }

    /// Scheme, host and port.
    package var origin: String { "\(scheme)://\(host):\(port)" }

    /// Whether a token for one may be shown to the other.
    package func hasSameOrigin(as other: WebAddress) -> Bool {
        scheme == other.scheme && host == other.host && port == other.port
    }

    /// The address as requests send it.
    package var description: String {
        let isStandard = port == (scheme == "https" ? 443 : 80)
        return isStandard ? "\(scheme)://\(host)\(path)" : "\(origin)\(path)"
    }

    /// Splits `host[:port]`; nil if malformed.
    package static func splitAuthority(
        _ text: String, standardPort: Int
    ) -> (host: String, port: Int)? {
        var host = text
        var port = standardPort
        let tail = text.lastIndex(of: "]").map { text.index(after: $0) } ?? text.startIndex
        if let colon = text[tail...].lastIndex(of: ":") {
            guard let number = Int(text[text.index(after: colon)...]), (1...65_535).contains(number)
            else { return nil }
            host = String(text[..<colon])
            port = number
        }
        let isBracketed = host.hasPrefix("[") && host.hasSuffix("]") && host.count > 2
        guard !host.isEmpty, isBracketed || !host.contains(":") else { return nil }
        return (host.lowercased(), port)
    }
}

/// A path with all but unreserved characters percent-encoded; slashes stay if wanted.
package func percentEncoded(_ text: String, keepingSlashes: Bool) -> String {
    var result = ""
    for byte in text.utf8 {
        let scalar = Unicode.Scalar(byte)
        let isPlain =
            (byte < 128 && (Character(scalar).isLetter || Character(scalar).isNumber))
            || "-._~".unicodeScalars.contains(scalar) || (keepingSlashes && scalar == "/")
        if isPlain {
            result.unicodeScalars.append(scalar)
        } else {
            result += "%" + hexadecimal([byte]).uppercased()
        }
    }
    return result
}

/// Text with `%41` and the like decoded; malformed escapes stay as they are.
package func percentDecoded(_ text: String) -> String {
    var bytes: [UInt8] = []
    var rest = Substring(text).utf8
    while let byte = rest.popFirst() {
        if byte == UInt8(ascii: "%"), rest.count >= 2,
            let value = UInt8(String(rest.prefix(2)) ?? "", radix: 16)
        {
            bytes.append(value)
            rest = rest.dropFirst(2)
        } else {
            bytes.append(byte)
        }
    }
    return String(decoding: bytes, as: UTF8.self)
}
