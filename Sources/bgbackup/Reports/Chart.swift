import BackupBase

/// Columns or areas over time, as inline SVG: no script, readable in black on white.
struct Chart {
    struct Series {
        let name: String
        /// Of the page's style: "blue", "green", "pass", "warn", "fail", "soft".
        let color: String
        let opacity: Double
    }

    let label: String
    let series: [Series]
    /// Seconds since 1970, ascending, and bytes for each series.
    let points: [(moment: Double, values: [Int64])]
    var width = 1100.0
    var height = 190.0

    private let foot = 20.0
    private let head = 10.0
    private let side = 84.0
    private var sums: [Double] { points.map { Double($0.values.reduce(0, +)) } }
    /// The highest that is drawn whole: one that towers above all others, as a first backup does, is cut.
    private var most: Double {
        let highest = sums.sorted().suffix(2)
        guard let last = highest.last, let second = highest.first, highest.count == 2, second > 0, last > 4 * second else {
            return max(1, highest.last ?? 1)
        }
        return second * 1.25
    }

    private func y(_ value: Double) -> Double { height - foot - min(value / most, 1) * (height - foot - head) }

    private func frame(_ inner: String) -> String {
        let (first, last) = (points.first?.moment ?? 0, points.last?.moment ?? 0)
        let legend = series.count < 2 ? "" : "<p class=\"soft legend\">\(series.map(key).joined())</p>"
        let pattern = formatTime(first, "%F") == formatTime(last, "%F") ? "%H:%M" : "%Y-%m-%d"
        return """
            \(legend)<div class="scroll"><svg viewBox="0 0 \(fixed(width, 0)) \(fixed(height, 0))" role="img" aria-label="\(escaped(label))">
            <line x1="\(side)" y1="\(fixed(y(0), 1))" x2="\(fixed(width, 0))" y2="\(fixed(y(0), 1))" stroke="var(--line)"/>
            <line x1="\(side)" y1="\(fixed(y(most), 1))" x2="\(fixed(width, 0))" y2="\(fixed(y(most), 1))" stroke="var(--line)" \
            stroke-dasharray="3 3"/>
            \(inner)
            <text x="0" y="\(fixed(y(most) + 4, 1))">\(formatBytes(Int64(most)))</text><text x="0" y="\(fixed(y(0), 1))">0</text>
            <text x="\(side)" y="\(fixed(height - 4, 1))">\(formatTime(first, pattern))</text>
            <text x="\(fixed(width - 2, 0))" y="\(fixed(height - 4, 1))" text-anchor="end">\(formatTime(last, pattern))</text>
            </svg></div>
            """
    }

    private func key(_ series: Series) -> String {
        "<span><i style=\"background:var(--\(series.color));opacity:\(fixed(series.opacity, 2))\"></i>\(escaped(series.name))</span> "
    }

    /// One column a point, side by side.
    var columns: String {
        let step = (width - side - 4) / Double(max(points.count, 1))
        let inner = points.enumerated().map { index, point in
            var sum = 0.0
            let parts = zip(series, point.values).filter { $0.1 > 0 }.map { series, value in
                let bottom = sum
                sum += Double(value)
                return """
                    <rect x="\(fixed(side + 2 + Double(index) * step, 1))" y="\(fixed(y(sum), 1))" width="\(fixed(max(step * 0.78, 0.6), 1))" \
                    height="\(fixed(max(y(bottom) - y(sum), 0.4), 1))" fill="var(--\(series.color))" opacity="\(fixed(series.opacity, 2))"/>
                    """
            }
            let words = zip(series, point.values).filter { $0.1 > 0 }.map { "\($0.0.name) \(formatBytes($0.1))" }
            let title =
                "\(formatTime(point.moment, "%Y-%m-%d %H:%M")): \(words.isEmpty ? "nothing" : words.joined(separator: ", "))"
            let whole = Double(point.values.reduce(0, +))
            let cut =
                whole <= most
                ? ""
                : "<text x=\"\(fixed(side + 4 + Double(index + 1) * step, 1))\" y=\"\(fixed(head + 12, 1))\">↑ \(formatBytes(Int64(whole)))</text>"
            return "<g><title>\(escaped(title))</title>\(parts.joined())\(cut)</g>"
        }.joined(separator: "\n")
        return frame(inner)
    }

    /// Areas on top of each other.
    var areas: String {
        guard let first = points.first, let last = points.last else { return "" }
        let span = max(last.moment - first.moment, 1)
        func x(_ moment: Double) -> Double { side + 2 + (moment - first.moment) / span * (width - side - 6) }
        var sums = points.map { _ in 0.0 }
        let inner = series.enumerated().map { index, series in
            let below = sums
            for (point, value) in points.enumerated() where index < value.values.count {
                sums[point] += Double(value.values[index])
            }
            let top = zip(points, sums).map { "\(fixed(x($0.moment), 1)),\(fixed(y($1), 1))" }
            let bottom = zip(points, below).reversed().map { "\(fixed(x($0.moment), 1)),\(fixed(y($1), 1))" }
            return """
                <polygon points="\((top + bottom).joined(separator: " "))" fill="var(--\(series.color))" opacity="\(fixed(series.opacity, 2))"/>
                """
        }.joined(separator: "\n")
        return frame(inner)
    }
}
