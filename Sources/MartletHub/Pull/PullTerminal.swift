// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Draws a pull on standard error: a bar on a terminal, plain lines elsewhere.
public final class PullTerminal: Sendable {
    /// How to draw.
    public enum Style: Sendable, Hashable {
        /// A bar that is redrawn in place.
        case bar(columnCount: Int, hasColor: Bool)
        /// One line per event and per ten percent.
        case lines
        /// Nothing at all.
        case quiet
    }

    private struct State {
        var shown = 0.0
        var isBarOpen = false
        var decade = 0
    }

    private let style: Style
    private let write: @Sendable (String) -> Void
    private let state = Mutex(State())

    /// Draws in a style.
    ///
    /// - Parameters:
    ///   - style: See `standardStyle`.
    ///   - write: Takes the text; nil writes to standard error.
    public init(style: Style, write: (@Sendable (String) -> Void)? = nil) {
        self.style = style
        self.write =
            write ?? { text in
                var text = text
                text.withUTF8 { _ = systemWrite($0) }
            }
    }

    /// The style that suits standard error: bars on a terminal unless it is dumb or
    /// `HF_HUB_DISABLE_PROGRESS_BARS` is set, colour unless `NO_COLOR` is.
    public static func standardStyle(
        isQuiet: Bool = false, environment: [String: String]? = nil
    ) -> Style {
        if isQuiet { return .quiet }
        let environment = environment ?? ProcessEnvironment.current()
        func isSet(_ name: String) -> Bool { environment[name].map { !$0.isEmpty } ?? false }
        guard isatty(2) == 1, environment["TERM"] != "dumb",
            !isSet("HF_HUB_DISABLE_PROGRESS_BARS")
        else { return .lines }
        var size = winsize()
        let isKnown = ioctl(2, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        return .bar(columnCount: isKnown ? Int(size.ws_col) : 80, hasColor: !isSet("NO_COLOR"))
    }

    /// The observer to hand to a pull.
    public var observer: PullObserver { { event in self.take(event) } }

    /// Draws one event.
    public func take(_ event: PullEvent) {
        guard style != .quiet else { return }
        state.withLock { state in
            let text = draw(event, &state)
            if !text.isEmpty { write(text) }
        }
    }

    private func draw(_ event: PullEvent, _ state: inout State) -> String {
        switch event {
        case .source(let name):
            state.shown = 0
            state.decade = 0
            return line("source: \(name)", &state)
        case .fallback(let source, let reason):
            return line("\(source) failed: \(reason); trying the next source", &state)
        case .waiting(let name): return line("waiting for another pull of \(name)", &state)
        case .retry(let repetition, let limit, let delay, let reason):
            let wait = decimal(Double(delay) / 1000)
            return line("\(reason); retry \(repetition) of \(limit) in \(wait) s", &state)
        case .progress(let progress): return draw(progress, &state)
        case .file(let name, let byteCount):
            return line("\(name): \(Self.bytes(byteCount))", &state, over: true)
        case .done(let model):
            return line("done: \(Self.bytes(model.byteCount)) from \(model.source)", &state)
        }
    }

    private func draw(_ progress: TransferProgress, _ state: inout State) -> String {
        let rate =
            progress.bytesPerSecond > 0
            ? "\(Self.bytes(Int(clampingFinite: progress.bytesPerSecond)))/s" : ""
        var eta = progress.secondsLeft.map { "ETA \(Self.time($0))" } ?? ""
        if progress.fileCount > 1 {
            eta += "  \(progress.finishedFileCount)/\(progress.fileCount) files"
        }
        guard let total = progress.totalByteCount, total > 0 else {
            guard case .bar = style else { return "" }
            state.isBarOpen = true
            return "\r\u{1b}[K\(Self.bytes(progress.byteCount)) \(rate)"
        }
        // A restart must not move the bar backwards: it stands until the bytes catch up.
        state.shown = max(state.shown, min(1, Double(progress.byteCount) / Double(total)))
        let percent = Int(state.shown * 100)
        let amount = "\(Self.bytes(Int(state.shown * Double(total)))) / \(Self.bytes(total))"
        guard case .bar(let columnCount, let hasColor) = style else {
            guard percent / 10 > state.decade else { return "" }
            state.decade = percent / 10
            return line("\(percent) % \(amount) \(rate) \(eta)", &state)
        }
        let tail = " \(amount)  \(rate)  \(eta)"
        let head = (percent < 10 ? "  " : percent < 100 ? " " : "") + "\(percent) % "
        let width = max(0, min(40, columnCount - head.count - tail.count - 3))
        let filled = Int(state.shown * Double(width))
        let full = String(repeating: "#", count: filled)
        let rest = String(repeating: "-", count: width - filled)
        let bar = width == 0 ? "" : hasColor ? "\u{1b}[32m\(full)\u{1b}[0m\(rest)" : full + rest
        state.isBarOpen = true
        return "\r\u{1b}[K\(head)\(bar)\(tail.prefix(max(0, columnCount - head.count - width - 1)))"
    }

    /// A line of its own; one about a file takes the bar's place, which is drawn below again.
    private func line(_ text: String, _ state: inout State, over: Bool = false) -> String {
        defer { state.isBarOpen = false }
        return (state.isBarOpen ? over ? "\r\u{1b}[K" : "\n" : "") + text + "\n"
    }

    /// Bytes in decimal units, such as `98.4 MB`.
    package static func bytes(_ count: Int) -> String {
        var value = Double(count)
        for unit in ["B", "kB", "MB", "GB"] {
            if value < 999.5 { return unit == "B" ? "\(count) B" : "\(decimal(value)) \(unit)" }
            value /= 1000
        }
        return "\(decimal(value)) TB"
    }

    /// A duration, such as `5s`, `1m05s` or `2h03m`.
    package static func time(_ seconds: Double) -> String {
        let whole = Int(clampingFinite: seconds.rounded(.up))
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        if whole < 60 { return "\(whole)s" }
        if whole < 3600 { return "\(whole / 60)m\(two(whole % 60))s" }
        return "\(whole / 3600)h\(two(whole / 60 % 60))m"
    }
}

/// A number with one digit behind the point.
private func decimal(_ value: Double) -> String {
    let tenths = Int(clampingFinite: (value * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
}

extension Int {
    /// The nearest integer in 0...10^15; 0 for what is no number.
    fileprivate init(clampingFinite value: Double) {
        self = value.isNaN ? 0 : Int(Swift.min(Swift.max(value, 0), 1e15))
    }
}

private func systemWrite(_ bytes: UnsafeBufferPointer<UInt8>) -> Int {
    #if canImport(Glibc)
    Glibc.write(2, bytes.baseAddress, bytes.count)
    #elseif canImport(Musl)
    Musl.write(2, bytes.baseAddress, bytes.count)
    #else
    Darwin.write(2, bytes.baseAddress, bytes.count)
    #endif
}
