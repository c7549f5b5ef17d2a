/// The known name that `word` was probably meant to be; nil when none is near.
///
/// Near: the same but for case, hyphens and underscores, or at most a third of the letters wrong
/// (and at most three), counting a wrong, missing, extra letter or two exchanged neighbours as one.
package func suggestion(for word: String, among known: [String]) -> String? {
    // Distance costs length times length, and nobody mistypes a name of this size.
    guard word.utf8.count <= 64 else { return nil }
    let wanted = normalised(word)
    let limit = min(3, max(1, wanted.count / 3))
    var best: (name: String, distance: Int)?
    for name in known {
        let distance = editDistance(wanted, normalised(name))
        if distance <= limit, distance < best?.distance ?? .max { best = (name, distance) }
    }
    return best?.name
}

private func normalised(_ word: String) -> [UInt8] {
    word.lowercased().utf8.map { $0 == UInt8(ascii: "-") ? UInt8(ascii: "_") : $0 }
}

/// Optimal string alignment: insertions, deletions, substitutions, neighbours exchanged.
private func editDistance(_ left: [UInt8], _ right: [UInt8]) -> Int {
    var beforePrevious: [Int] = []
    var previous = Array(0...right.count)
    for row in 0..<left.count {
        var current = [row + 1]
        for column in 0..<right.count {
            let cost = left[row] == right[column] ? 0 : 1
            var distance = min(
                previous[column] + cost, previous[column + 1] + 1, current[column] + 1)
            if row > 0, column > 0, left[row] == right[column - 1],
                left[row - 1] == right[column]
            {
                distance = min(distance, beforePrevious[column - 1] + 1)
            }
            current.append(distance)
        }
        (beforePrevious, previous) = (previous, current)
    }
    return previous[right.count]
}
