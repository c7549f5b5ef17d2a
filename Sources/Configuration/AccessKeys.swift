// Where the keys of a command are among its arguments, and what it does with them.
//
//     = SPECIFICATION …        commands that have these, each with its arity
//     name/arity …             -3: at least 3 words, its own name included
//
//     SPECIFICATION  begin:find:uses
//       begin        2               the first key is this word (the command's name is 0)
//                    STREAMS@4       the first key is behind this keyword, which stands at 4 or later
//                    ?               nobody can tell
//       find         last,step,limit the last key, from the first one, or from the end if negative;
//                                    limit: only so big a part of the rest (2: a half)
//                    #at,first,step  the number of keys stands `at` words further
//       uses         a access u update i insert d delete; n no key; ? there may be more; v it depends
//
// As a server does, what a specification cannot be applied to has no keys: such a command is refused for
// its syntax.
//
// Source: the answers of COMMAND of redis-server 7.0.15 and Valkey 9.1; db.c of Redis 7.0
// (getKeysUsingKeySpecs, setGetKeys, bitfieldGetKeys, sortGetKeys, migrateGetKeys).

/// A key that a command uses, and how.
package struct AccessKeyUse: Sendable, Equatable {
    package var key: [UInt8]
    package var reads: Bool
    package var writes: Bool

    package init(key: [UInt8], reads: Bool, writes: Bool) {
        self.key = key
        self.reads = reads
        self.writes = writes
    }
}

/// A command as a client would send it.
package struct AccessRequest: Sendable, Equatable {
    /// In lower case, with its subcommand if it has such: `config|get`.
    package let name: String
    /// The command's own words first.
    package let words: [[UInt8]]

    package enum Mistake: Error, Equatable {
        case noSuchCommand(String)
        case noSuchSubcommand(String, of: String)
        case wrongNumberOfArguments(String)
    }

    /// - Throws: what a server says before it looks at permissions. A command of a module may exist
    ///   all the same.
    package init(_ words: [String]) throws(Mistake) {
        let first = words.first?.lowercased() ?? ""
        guard let known = AccessCommands.table[first] else { throw .noSuchCommand(first) }
        var name = known.name
        if AccessCommands.subcommands[first] != nil, words.count > 1 {
            name = "\(first)|\(words[1].lowercased())"
            guard AccessCommands.table[name] != nil else {
                throw .noSuchSubcommand(words[1].lowercased(), of: first)
            }
        }
        if let arity = AccessKeys.table[name]?.arity {
            let fits = arity < 0 ? words.count >= -arity : words.count == arity
            guard fits else { throw .wrongNumberOfArguments(name) }
        }
        self.name = name
        self.words = words.map { Array($0.utf8) }
    }

    /// The keys that it names; nil if it has some and nobody here knows where.
    package var keys: [AccessKeyUse]? {
        guard let found = AccessKeys.table[name] else {
            return AccessCommands.table[name]?.hasKeys == false ? [] : nil
        }
        return AccessKeys.keys(of: name, found.specifications, words)
    }

    /// The channels that it names, and whether each is a pattern. Leaving one needs no permission.
    var channels: [(channel: [UInt8], isPattern: Bool)] {
        switch name {
        case "publish", "spublish": words.dropFirst().prefix(1).map { ($0, false) }
        case "subscribe", "ssubscribe": words.dropFirst().map { ($0, false) }
        case "psubscribe": words.dropFirst().map { ($0, true) }
        default: []
        }
    }

    /// Everybody may use these, whatever the access string says: they come before a login.
    var needsNoPermission: Bool { ["auth", "hello", "quit", "reset"].contains(name) }
}

enum AccessKeys {
    struct Specification: Sendable {
        enum Begin: Sendable {
            case index(Int)
            case keyword(String, from: Int)
            case unknown
        }

        enum Find: Sendable {
            case range(last: Int, step: Int, limit: Int)
            case count(at: Int, first: Int, step: Int)
            case unknown
        }

        let begin: Begin
        let find: Find
        let uses: String

        /// Reads `begin:find:uses`; the table is ours, and a mistake in it a programmer's.
        init(_ text: Substring) {
            let parts = text.split(separator: ":")
            precondition(parts.count == 3, "begin:find:uses, got \(text)")
            if parts[0] == "?" {
                begin = .unknown
            } else if let at = parts[0].firstIndex(of: "@") {
                begin = .keyword(
                    parts[0][..<at].lowercased(), from: Self.number(parts[0][at...].dropFirst()))
            } else {
                begin = .index(Self.number(parts[0]))
            }
            let numbers = parts[1].split(separator: ",")
            if parts[1] == "?" {
                find = .unknown
            } else if parts[1].hasPrefix("#") {
                find = .count(
                    at: Self.number(numbers[0].dropFirst()), first: Self.number(numbers[1]),
                    step: Self.number(numbers[2]))
            } else {
                find = .range(
                    last: Self.number(numbers[0]), step: Self.number(numbers[1]),
                    limit: Self.number(numbers[2]))
            }
            uses = String(parts[2])
        }

        private static func number(_ text: Substring) -> Int {
            guard let number = Int(text) else { preconditionFailure("a number, got \(text)") }
            return number
        }

        var reads: Bool { uses.contains("a") }
        var writes: Bool { uses.contains { "uid".contains($0) } }
        var isNoKey: Bool { uses.contains("n") }
    }

    static func keys(
        of name: String, _ specifications: [Specification], _ words: [[UInt8]]
    ) -> [AccessKeyUse] {
        // Where it depends on what else is said, the server asks a function and not its table.
        switch name {
        case "set": return set(words)
        case "bitfield": return bitfield(words)
        case "sort": return sort(words)
        case "sort_ro": return uses(words, 1..<2, reads: true, writes: false)
        case "migrate": return migrate(words)
        default: break
        }
        var found: [AccessKeyUse] = []
        for specification in specifications where !specification.isNoKey {
            guard let first = first(specification, words) else {
                if case .keyword = specification.begin { continue }
                return []
            }
            guard let places = places(specification, first, words) else { return [] }
            found += places.map {
                AccessKeyUse(
                    key: words[$0], reads: specification.reads, writes: specification.writes)
            }
        }
        return found
    }

    private static func first(_ specification: Specification, _ words: [[UInt8]]) -> Int? {
        switch specification.begin {
        case .index(let index): return index
        case .keyword(let keyword, let from):
            guard from > 0, from < words.count - 1 else { return nil }
            return (from..<(words.count - 1)).first { isWord(words[$0], keyword) }.map { $0 + 1 }
        case .unknown: return nil
        }
    }

    /// nil: it cannot be applied.
    private static func places(
        _ specification: Specification, _ begin: Int, _ words: [[UInt8]]
    ) -> StrideThrough<Int>? {
        var first = begin
        let last: Int
        let step: Int
        switch specification.find {
        case .range(let end, let by, let limit):
            step = by
            if end >= 0 {
                last = first + end
            } else if limit == 0 {
                last = words.count + end
            } else {
                last = first + (words.count - first) / limit + end
            }
        case .count(let at, let behind, let by):
            step = by
            guard first + at < words.count, let count = number(words[first + at]), count >= 0,
                count < words.count
            else { return nil }
            first += behind
            last = first + (count - 1) * step
        case .unknown: return nil
        }
        guard last < words.count, last >= first, first < words.count else { return nil }
        return stride(from: first, through: last, by: step)
    }

    // MARK: Commands of their own kind

    private static func uses(
        _ words: [[UInt8]], _ range: Range<Int>, reads: Bool, writes: Bool
    ) -> [AccessKeyUse] {
        range.filter(words.indices.contains).map {
            AccessKeyUse(key: words[$0], reads: reads, writes: writes)
        }
    }

    private static func set(_ words: [[UInt8]]) -> [AccessKeyUse] {
        let returns = words.dropFirst(3).contains { isWord($0, "get") }
        return uses(words, 1..<2, reads: returns, writes: true)
    }

    private static func bitfield(_ words: [[UInt8]]) -> [AccessKeyUse] {
        var index = 2
        while index < words.count {
            let left = words.count - index - 1
            if isWord(words[index], "get"), left >= 2 {
                index += 3
            } else if isWord(words[index], "overflow"), left >= 1 {
                index += 2
            } else {
                return uses(words, 1..<2, reads: true, writes: true)
            }
        }
        return uses(words, 1..<2, reads: true, writes: false)
    }

    private static func sort(_ words: [[UInt8]]) -> [AccessKeyUse] {
        var store: Int?
        var index = 2
        while index < words.count {
            if isWord(words[index], "limit") {
                index += 2
            } else if isWord(words[index], "get") || isWord(words[index], "by") {
                index += 1
            } else if isWord(words[index], "store"), index + 1 < words.count {
                store = index + 1
            }
            index += 1
        }
        return uses(words, 1..<2, reads: true, writes: false)
            + (store.map { uses(words, $0..<($0 + 1), reads: false, writes: true) } ?? [])
    }

    private static func migrate(_ words: [[UInt8]]) -> [AccessKeyUse] {
        var index = 6
        while index < words.count {
            if isWord(words[index], "keys") {
                guard words[3].isEmpty else { return [] }
                return uses(words, (index + 1)..<words.count, reads: true, writes: true)
            }
            if isWord(words[index], "auth") { index += 1 }
            if isWord(words[index], "auth2") { index += 2 }
            index += 1
        }
        return uses(words, 3..<4, reads: true, writes: true)
    }

    private static func isWord(_ bytes: [UInt8], _ word: String) -> Bool {
        String(decoding: bytes, as: UTF8.self).lowercased() == word
    }

    private static func number(_ bytes: [UInt8]) -> Int? {
        let text = String(decoding: bytes, as: UTF8.self)
        return text.hasPrefix("+") ? nil : Int(text)
    }

    // MARK: The table

    static let table: [String: (arity: Int, specifications: [Specification])] = {
        var table: [String: (arity: Int, specifications: [Specification])] = [:]
        var specifications: [Specification] = []
        for line in text.split(separator: "\n") {
            var words = line.split(separator: " ")
            if words.first == "=" {
                words.removeFirst()
                specifications = words.first == "none" ? [] : words.map { Specification($0) }
                continue
            }
            for word in words {
                let parts = word.split(separator: "/")
                guard parts.count == 2, let arity = Int(parts[1]) else {
                    preconditionFailure("name/arity, got \(word)")
                }
                table[String(parts[0])] = (arity, specifications)
            }
        }
        return table
    }()

    private static let text = """
        = none
        acl/-2 acl|cat/-2 acl|deluser/-3 acl|dryrun/-4 acl|genpass/-2 acl|getuser/3
        acl|help/2 acl|list/2 acl|load/2 acl|log/-2 acl|save/2 acl|setuser/-3
        acl|users/2 acl|whoami/2 asking/1 auth/-2 bgrewriteaof/1 bgsave/-1 client/-2
        client|caching/3 client|capa/-3 client|getname/2 client|getredir/2
        client|help/2 client|id/2 client|import-source/3 client|info/2 client|kill/-3
        client|list/-2 client|no-evict/3 client|no-touch/3 client|pause/-3
        client|reply/3 client|setinfo/4 client|setname/3 client|tracking/-3
        client|trackinginfo/2 client|unblock/-3 client|unpause/2 cluster/-2
        cluster|addslots/-3 cluster|addslotsrange/-4 cluster|bumpepoch/2
        cluster|cancelslotmigrations/2 cluster|count-failure-reports/3
        cluster|countkeysinslot/3 cluster|delslots/-3 cluster|delslotsrange/-4
        cluster|failover/-2 cluster|flushslot/-3 cluster|flushslots/2 cluster|forget/3
        cluster|getkeysinslot/4 cluster|getslotmigrations/2 cluster|help/2
        cluster|info/2 cluster|keyslot/3 cluster|links/2 cluster|meet/-4
        cluster|migrateslots/-4 cluster|myid/2 cluster|myshardid/2 cluster|nodes/2
        cluster|replicas/3 cluster|replicate/-3 cluster|reset/-2 cluster|saveconfig/2
        cluster|set-config-epoch/3 cluster|setslot/-4 cluster|shards/2
        cluster|slaves/3 cluster|slot-stats/-4 cluster|slots/2 cluster|syncslots/-3
        command/-1 commandlog/-2 commandlog|get/4 commandlog|help/2 commandlog|len/3
        commandlog|reset/3 command|count/2 command|docs/-2 command|getkeys/-3
        command|getkeysandflags/-3 command|help/2 command|info/-2 command|list/-2
        config/-2 config|get/-3 config|help/2 config|resetstat/2 config|rewrite/2
        config|set/-4 dbsize/1 debug/-2 discard/1 echo/2 exec/1 failover/-1
        flushall/-1 flushdb/-1 function/-2 function|delete/3 function|dump/2
        function|flush/-2 function|help/2 function|kill/2 function|list/-2
        function|load/-3 function|restore/-3 function|stats/2 hello/-1 info/-1 keys/2
        lastsave/1 latency/-2 latency|doctor/2 latency|graph/3 latency|help/2
        latency|histogram/-2 latency|history/3 latency|latest/2 latency|reset/-2
        lolwut/-1 memory/-2 memory|doctor/2 memory|help/2 memory|malloc-stats/2
        memory|purge/2 memory|stats/2 module/-2 module|help/2 module|list/2
        module|load/-3 module|loadex/-3 module|unload/3 monitor/1 multi/1 object/-2
        object|help/2 pfselftest/1 ping/-1 psubscribe/-2 psync/-3 publish/3 pubsub/-2
        pubsub|channels/-2 pubsub|help/2 pubsub|numpat/2 pubsub|numsub/-2
        pubsub|shardchannels/-2 pubsub|shardnumsub/-2 punsubscribe/-1 quit/-1
        randomkey/1 readonly/1 readwrite/1 replconf/-1 replicaof/3 reset/1 role/1
        save/1 scan/-2 script/-2 script|debug/-3 script|exists/-3 script|flush/-2
        script|help/2 script|kill/2 script|load/3 script|show/3 select/2 shutdown/-1
        slaveof/3 slowlog/-2 slowlog|get/-2 slowlog|help/2 slowlog|len/2
        slowlog|reset/2 subscribe/-2 swapdb/3 sync/1 time/1 unsubscribe/-1 unwatch/1
        wait/3 waitaof/4 xgroup/-2 xgroup|help/2 xinfo/-2 xinfo|help/2
        = 1:#0,1,1:a
        sintercard/-3 zdiff/-3 zinter/-3 zintercard/-3 zunion/-3
        = 1:#0,1,1:ad
        lmpop/-4 zmpop/-4
        = 1:#0,1,2:u
        msetex/-4
        = 1:-1,1,0:-
        exists/-2 touch/-2 watch/-2
        = 1:-1,1,0:a
        mget/-2 pfcount/-2 sdiff/-2 sinter/-2 sunion/-2
        = 1:-1,1,0:d
        del/-2 unlink/-2
        = 1:-1,1,0:n
        ssubscribe/-2 sunsubscribe/-1
        = 1:-1,2,0:i
        msetnx/-3
        = 1:-1,2,0:u
        mset/-3
        = 1:-2,1,0:ad
        blpop/-3 brpop/-3 bzpopmax/-3 bzpopmin/-3
        = 1:0,1,0:-
        hexists/3 hlen/2 hstrlen/3 llen/2 scard/2 sismember/3 strlen/2 type/2 xlen/2
        zcard/2
        = 1:0,1,0:a
        bitcount/-2 bitfield_ro/-2 bitpos/-3 dump/2 expiretime/2 geodist/-4 geohash/-2
        geopos/-2 georadius_ro/-6 georadiusbymember_ro/-5 geosearch/-7 get/2 getbit/3
        getrange/4 hexpiretime/-5 hget/3 hgetall/2 hkeys/2 hmget/-3 hpexpiretime/-5
        hpttl/-5 hrandfield/-2 hscan/-3 httl/-5 hvals/2 lindex/3 lpos/-3 lrange/4
        pexpiretime/2 pttl/2 smembers/2 smismember/-3 srandmember/-2 sscan/-3 substr/4
        ttl/2 xpending/-3 xrange/-4 xrevrange/-4 zcount/4 zlexcount/4 zmscore/-3
        zrandmember/-2 zrange/-4 zrangebylex/-4 zrangebyscore/-4 zrank/-3 zrevrange/-4
        zrevrangebylex/-4 zrevrangebyscore/-4 zrevrank/-3 zscan/-3 zscore/3
        = 1:0,1,0:a 2:0,1,0:u
        copy/-3
        = 1:0,1,0:a ?:?:a
        sort_ro/-2
        = 1:0,1,0:a ?:?:a ?:?:u
        sort/-2
        = 1:0,1,0:a STORE@5:0,1,0:u STOREDIST@5:0,1,0:u
        georadiusbymember/-5
        = 1:0,1,0:a STORE@6:0,1,0:u STOREDIST@6:0,1,0:u
        georadius/-6
        = 1:0,1,0:ad
        getdel/2 hgetdel/-5 lpop/-2 rpop/-2 spop/-2 zpopmax/-2 zpopmin/-2
        = 1:0,1,0:ad 2:0,1,0:i
        blmove/6 brpoplpush/4 lmove/5 renamenx/3 rpoplpush/3 smove/4
        = 1:0,1,0:ad 2:0,1,0:u
        rename/3
        = 1:0,1,0:ai 2:-1,1,0:a
        pfmerge/-2
        = 1:0,1,0:au
        decr/2 decrby/3 getex/-2 getset/3 hgetex/-5 hincrby/4 hincrbyfloat/4 incr/2
        incrby/3 incrbyfloat/3 move/3 setbit/4 zincrby/4
        = 1:0,1,0:auv
        bitfield/-2 set/-3
        = 1:0,1,0:d
        delifeq/3 hdel/-3 lrem/4 ltrim/4 srem/-3 xautoclaim/-6 xdel/-3 xtrim/-4
        zrem/-3 zremrangebylex/4 zremrangebyrank/4 zremrangebyscore/4
        = 1:0,1,0:i
        append/3 hsetex/-6 hsetnx/4 linsert/5 lpush/-3 lpushx/-3 pfadd/-2 rpush/-3
        rpushx/-3 sadd/-3 setnx/3
        = 1:0,1,0:n
        clusterscan/-2 spublish/3
        = 1:0,1,0:u
        expire/-3 expireat/-3 geoadd/-5 hexpire/-6 hexpireat/-6 hmset/-4 hpersist/-5
        hpexpire/-6 hpexpireat/-6 hset/-4 lset/4 persist/2 pexpire/-3 pexpireat/-3
        psetex/4 restore/-4 restore-asking/-4 setex/4 setrange/4 xack/-4 xadd/-5
        xclaim/-6 xsetid/-3 zadd/-4
        = 1:0,1,0:u 2:#0,1,1:a
        zdiffstore/-4 zinterstore/-4 zunionstore/-4
        = 1:0,1,0:u 2:-1,1,0:a
        sdiffstore/-3 sinterstore/-3 sunionstore/-3
        = 1:0,1,0:u 2:0,1,0:a
        geosearchstore/-8 zrangestore/-5
        = 1:1,1,0:a
        lcs/-3
        = 2:#0,1,1:a
        eval_ro/-3 evalsha_ro/-3 fcall_ro/-3
        = 2:#0,1,1:ad
        blmpop/-5 bzmpop/-5
        = 2:#0,1,1:au
        eval/-3 evalsha/-3 fcall/-3
        = 2:0,1,0:-
        memory|usage/-3 object|encoding/3 object|freq/3 object|idletime/3
        object|refcount/3
        = 2:0,1,0:a
        pfdebug/3 xinfo|consumers/4 xinfo|groups/3 xinfo|stream/-3
        = 2:0,1,0:d
        xgroup|delconsumer/5 xgroup|destroy/4
        = 2:0,1,0:i
        xgroup|create/-5 xgroup|createconsumer/5
        = 2:0,1,0:u
        xgroup|setid/-5
        = 2:0,1,0:u 3:-1,1,0:a
        bitop/-4
        = 3:0,1,0:ad KEYS@-2:-1,1,0:?ad
        migrate/-6
        = STREAMS@1:-1,1,2:a
        xread/-4
        = STREAMS@4:-1,1,2:a
        xreadgroup/-7
        """
}
