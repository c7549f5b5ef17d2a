// Which treatment a command needs, from its name alone.
//
// The name is compared in place, as one or two words of eight bytes: `& 0xDF` in every byte makes
// a letter upper case and makes no other byte a letter, so the comparison is exact for names of
// letters. Names are grouped by length first; nine are the most in a group.
//
// The server keeps its commands in a hash table which hashes *all* bytes of a name but compares as
// C strings. `MULTI\0x` is therefore unknown in most cases, and MULTI in a few (when both fall into
// the same bucket, which depends on a random seed). Such a name can be neither shared nor trusted,
// so a name which is a NUL byte away from one that needs treatment is `ambiguous`.
//
// Rejected: a perfect hash (one multiplication and a table in memory, no faster than the branches a
// predictor learns, and unreadable); a `[String: CommandClass]` (allocates, hashes, copies).

/// Which treatment a command needs.
@usableFromInline
package enum CommandClass: UInt8, Sendable, CaseIterable {
    /// Everything not below: unknown commands and those of modules too. One request, one reply.
    case plain
    /// No command at all (an empty line, a count of zero or less): no reply comes.
    case none
    /// AUTH.
    case auth
    /// HELLO.
    case hello
    /// QUIT.
    case quit
    /// RESET.
    case reset
    /// SELECT.
    case select
    /// CLIENT with any subcommand.
    case client
    /// MULTI.
    case multi
    /// EXEC.
    case exec
    /// DISCARD.
    case discard
    /// WATCH.
    case watch
    /// UNWATCH.
    case unwatch
    /// BLPOP BRPOP BLMOVE BRPOPLPUSH BLMPOP BZPOPMIN BZPOPMAX BZMPOP.
    case blocking
    /// XREAD XREADGROUP: they block only with a BLOCK option.
    case streamRead
    /// WAIT WAITAOF.
    case wait
    /// SUBSCRIBE PSUBSCRIBE SSUBSCRIBE.
    case subscribe
    /// UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE.
    case unsubscribe
    /// MONITOR.
    case monitor
    /// SYNC PSYNC, after which bytes flow both ways without frames; REPLCONF, which precedes them.
    case replication
    /// READONLY READWRITE ASKING; DEBUG, which may send a push behind its answer.
    case lasting
    /// SCRIPT: KILL is out of band, DEBUG sticks to the connection, the rest is plain.
    case script
    /// FUNCTION: KILL is out of band, the rest is plain.
    case function
    /// SHUTDOWN FAILOVER.
    case outOfBand
}

extension CommandClass {
    /// The class of the command with this name, in any case, without copying it.
    ///
    /// A name with a NUL byte gets the class of what stands before the NUL, because that is what
    /// the server may take it for. POST and Host: are `plain` here; `RequestFramer` refuses them.
    /// - Parameters:
    ///   - name: the first byte of the name; `count` bytes are readable there.
    ///   - count: any number of bytes, zero included.
    package static func recognise(_ name: UnsafeRawPointer, count: Int) -> CommandClass {
        switch NameVerdict(name, count: count) {
        case .command(let found), .ambiguous(let found): found
        case .crossProtocol: .plain
        }
    }
}

/// What a name is, with the two kinds of names that no request may have.
@usableFromInline
enum NameVerdict: Equatable {
    case command(CommandClass)
    /// POST or Host:, for which the server closes the connection without a word.
    case crossProtocol
    /// A name of this class followed by a NUL byte and more.
    case ambiguous(CommandClass)

    /// As many bytes of a name as can matter: the longest name we look for and one NUL.
    static let significantBytes = 13

    /// Looks at no more than the first `significantBytes` of the name.
    @usableFromInline
    init(_ name: UnsafeRawPointer, count: Int) {
        let length = min(count, Self.significantBytes)
        var head: UInt64 = 0
        var tail: UInt64 = 0
        switch length {
        case 8...:
            // Two words that overlap, of which the second loses what the first has.
            head = UInt64(littleEndian: name.loadUnaligned(as: UInt64.self))
            tail = UInt64(
                littleEndian: name.loadUnaligned(fromByteOffset: length - 8, as: UInt64.self))
            if hasNUL(head) || hasNUL(tail) {
                self.init(interrupted: name, count: count)
                return
            }
            // A shift by all 64 bits leaves nothing, as it should for a name of eight.
            tail >>= UInt64(64 - 8 * (length - 8))
        case 4...:
            let first = name.loadUnaligned(as: UInt32.self)
            let last = name.loadUnaligned(fromByteOffset: length - 4, as: UInt32.self)
            head =
                UInt64(UInt32(littleEndian: first))
                | UInt64(UInt32(littleEndian: last)) << UInt64(8 * (length - 4))
            if hasNUL(head | ~0 << UInt64(8 * length)) {
                self.init(interrupted: name, count: count)
                return
            }
        default:
            // No command of fewer than four bytes needs treatment.
            self = .command(.plain)
            return
        }
        self =
            length <= 8
            ? Self(head: head, length: length)
            : Self(head: head, tail: tail, length: length)
    }

    /// A name with a NUL byte among its first `significantBytes`.
    private init(interrupted name: UnsafeRawPointer, count: Int) {
        var length = 0
        while length < count, name.load(fromByteOffset: length, as: UInt8.self) != 0 { length += 1 }
        let before = Self(name, count: length)
        if case .command(let command) = before, command != .plain, length < count {
            self = .ambiguous(command)
        } else {
            self = before
        }
    }

    /// A name of up to eight bytes, the first in the lowest byte, zeros above the last.
    @inlinable @inline(__always)
    init(head: UInt64, length: Int) {
        let word = head & upperCase
        switch length {
        case 4:
            switch word {
            case key("AUTH"): self = .command(.auth)
            case key("EXEC"): self = .command(.exec)
            case key("QUIT"): self = .command(.quit)
            case key("SYNC"): self = .command(.replication)
            case key("WAIT"): self = .command(.wait)
            case key("POST"): self = .crossProtocol
            default: self = .command(.plain)
            }
        case 5:
            switch word {
            case key("HELLO"): self = .command(.hello)
            case key("RESET"): self = .command(.reset)
            case key("MULTI"): self = .command(.multi)
            case key("WATCH"): self = .command(.watch)
            case key("BLPOP"), key("BRPOP"): self = .command(.blocking)
            case key("XREAD"): self = .command(.streamRead)
            case key("PSYNC"): self = .command(.replication)
            case key("DEBUG"): self = .command(.lasting)
            // A colon is no letter, so it must be looked at as it came.
            case key("HOST") | 0x1A << 32:
                self = head >> 32 == 0x3A ? .crossProtocol : .command(.plain)
            default: self = .command(.plain)
            }
        case 6:
            switch word {
            case key("SELECT"): self = .command(.select)
            case key("CLIENT"): self = .command(.client)
            case key("BLMOVE"), key("BLMPOP"), key("BZMPOP"): self = .command(.blocking)
            case key("SCRIPT"): self = .command(.script)
            case key("ASKING"): self = .command(.lasting)
            default: self = .command(.plain)
            }
        case 7:
            switch word {
            case key("DISCARD"): self = .command(.discard)
            case key("UNWATCH"): self = .command(.unwatch)
            case key("MONITOR"): self = .command(.monitor)
            case key("WAITAOF"): self = .command(.wait)
            default: self = .command(.plain)
            }
        case 8:
            switch word {
            case key("BZPOPMIN"), key("BZPOPMAX"): self = .command(.blocking)
            case key("REPLCONF"): self = .command(.replication)
            case key("READONLY"): self = .command(.lasting)
            case key("FUNCTION"): self = .command(.function)
            case key("SHUTDOWN"), key("FAILOVER"): self = .command(.outOfBand)
            default: self = .command(.plain)
            }
        default: self = .command(.plain)
        }
    }

    /// A name of more than eight bytes: `tail` holds those behind the eighth, zeros above the last.
    @usableFromInline
    init(head: UInt64, tail: UInt64, length: Int) {
        switch (length, head & upperCase, tail & upperCase) {
        case (9, key("SUBSCRIB"), key("E")): self = .command(.subscribe)
        case (9, key("READWRIT"), key("E")): self = .command(.lasting)
        case (10, key("PSUBSCRI"), key("BE")): self = .command(.subscribe)
        case (10, key("SSUBSCRI"), key("BE")): self = .command(.subscribe)
        case (10, key("BRPOPLPU"), key("SH")): self = .command(.blocking)
        case (10, key("XREADGRO"), key("UP")): self = .command(.streamRead)
        case (11, key("UNSUBSCR"), key("IBE")): self = .command(.unsubscribe)
        case (12, key("PUNSUBSC"), key("RIBE")): self = .command(.unsubscribe)
        case (12, key("SUNSUBSC"), key("RIBE")): self = .command(.unsubscribe)
        default: self = .command(.plain)
        }
    }
}

/// Whether one of eight bytes is zero.
@inlinable @inline(__always)
func hasNUL(_ word: UInt64) -> Bool {
    (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080 != 0
}

/// Makes the letters among eight bytes upper case, and no other byte a letter.
@inlinable
var upperCase: UInt64 { 0xDFDF_DFDF_DFDF_DFDF }

/// Up to eight ASCII letters as they stand in a word loaded from memory; folded at compile time.
@inlinable @inline(__always)
func key(_ name: StaticString) -> UInt64 {
    var word: UInt64 = 0
    var index = 0
    while index < name.utf8CodeUnitCount {
        word |= UInt64(name.utf8Start[index]) << UInt64(8 * index)
        index += 1
    }
    return word
}
