// The commands that access strings can name: since when, whether they have keys, and which categories
// they are in.
//
//     name  since  keys  categories          since: -    before Redis 6, the first with users
//                                                   new  after Redis 7.2: Redis 8, Valkey 8 and 9
//
// Source: the answers of COMMAND and COMMAND DOCS of redis-server 7.0.15 and Valkey 9.1; for commands
// that only Redis 8 has, its command reference. Commands of modules (`json.get`) are not here: which of
// them exist is the server's affair.

enum AccessCommands {
    struct Command: Sendable {
        let name: String
        let since: AccessDialect
        let hasKeys: Bool
        let categories: Set<Substring>
    }

    /// By name, in lower case; a subcommand's name is `config|get`.
    static let table: [String: Command] = {
        var table: [String: Command] = [:]
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            let since: AccessDialect =
                switch words[1] {
                case "-", "6.0": .redis6
                case "6.2": .redis62
                case "7.0": .redis7
                default: .newest
                }
            let name = String(words[0])
            table[name] = Command(
                name: name, since: since, hasKeys: words[2] == "key",
                categories: Set(words.dropFirst(3)))
        }
        return table
    }()

    /// The full names of a command's subcommands; empty for one without.
    static let subcommands: [String: [String]] = {
        var result: [String: [String]] = [:]
        for name in table.keys.sorted() {
            guard let bar = name.firstIndex(of: "|") else { continue }
            result[String(name[..<bar]), default: []].append(name)
        }
        return result
    }()

    /// Categories that servers have by themselves, and below those of well-known modules.
    static let categories: [String] = [
        "all", "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap",
        "hyperloglog", "geo", "stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous",
        "connection", "transaction", "scripting",
    ]

    /// Categories that exist where the module is loaded.
    static let moduleCategories: [String] = [
        "json", "search", "bloom", "cuckoo", "cms", "topk", "tdigest", "timeseries",
    ]

    /// What ElastiCache and MemoryDB both keep to themselves, with all subcommands of what has some.
    /// Source: their pages "Restricted commands"; only what both name.
    static let restrictedByAWS: Set<String> = [
        "acl|deluser", "acl|load", "acl|save", "acl|setuser", "bgrewriteaof", "bgsave", "config",
        "debug", "migrate", "psync", "replicaof", "save", "shutdown", "slaveof", "sync",
    ]

    private static let text = """
        acl 6.0 - slow
        acl|cat 6.0 - slow
        acl|deluser 6.0 - admin dangerous slow
        acl|dryrun 7.0 - admin dangerous slow
        acl|genpass 6.0 - slow
        acl|getuser 6.0 - admin dangerous slow
        acl|help 6.0 - slow
        acl|list 6.0 - admin dangerous slow
        acl|load 6.0 - admin dangerous slow
        acl|log 6.0 - admin dangerous slow
        acl|save 6.0 - admin dangerous slow
        acl|setuser 6.0 - admin dangerous slow
        acl|users 6.0 - admin dangerous slow
        acl|whoami 6.0 - slow
        append - key fast string write
        asking - - connection fast
        auth - - connection fast
        bgrewriteaof - - admin dangerous slow
        bgsave - - admin dangerous slow
        bitcount - key bitmap read slow
        bitfield - key bitmap slow write
        bitfield_ro 6.0 key bitmap fast read
        bitop - key bitmap slow write
        bitpos - key bitmap read slow
        blmove 6.2 key blocking list slow write
        blmpop 7.0 key blocking list slow write
        blpop - key blocking list slow write
        brpop - key blocking list slow write
        brpoplpush - key blocking list slow write
        bzmpop 7.0 key blocking slow sortedset write
        bzpopmax - key blocking fast sortedset write
        bzpopmin - key blocking fast sortedset write
        client - - slow
        client|caching 6.0 - connection slow
        client|capa new - connection slow
        client|getname - - connection slow
        client|getredir 6.0 - connection slow
        client|help - - connection slow
        client|id - - connection slow
        client|import-source new - connection slow
        client|info 6.2 - connection slow
        client|kill - - admin connection dangerous slow
        client|list - - admin connection dangerous slow
        client|no-evict 7.0 - admin connection dangerous slow
        client|no-touch 7.2 - connection slow
        client|pause - - admin connection dangerous slow
        client|reply - - connection slow
        client|setinfo 7.2 - connection slow
        client|setname - - connection slow
        client|tracking 6.0 - connection slow
        client|trackinginfo 6.2 - connection slow
        client|unblock - - admin connection dangerous slow
        client|unpause 6.2 - admin connection dangerous slow
        cluster - - slow
        cluster|addslots - - admin dangerous slow
        cluster|addslotsrange 7.0 - admin dangerous slow
        cluster|bumpepoch - - admin dangerous slow
        cluster|cancelslotmigrations new - admin dangerous slow
        cluster|count-failure-reports - - admin dangerous slow
        cluster|countkeysinslot - - slow
        cluster|delslots - - admin dangerous slow
        cluster|delslotsrange 7.0 - admin dangerous slow
        cluster|failover - - admin dangerous slow
        cluster|flushslot new - admin dangerous keyspace slow write
        cluster|flushslots - - admin dangerous slow
        cluster|forget - - admin dangerous slow
        cluster|getkeysinslot - - slow
        cluster|getslotmigrations new - admin dangerous slow
        cluster|help - - slow
        cluster|info - - slow
        cluster|keyslot - - slow
        cluster|links 7.0 - slow
        cluster|meet - - admin dangerous slow
        cluster|migrateslots new - admin dangerous slow
        cluster|migration new - admin dangerous slow
        cluster|myid - - slow
        cluster|myshardid 7.2 - slow
        cluster|nodes - - slow
        cluster|replicas - - admin dangerous slow
        cluster|replicate - - admin dangerous slow
        cluster|reset - - admin dangerous slow
        cluster|saveconfig - - admin dangerous slow
        cluster|set-config-epoch - - admin dangerous slow
        cluster|setslot - - admin dangerous slow
        cluster|shards 7.0 - slow
        cluster|slaves - - admin dangerous slow
        cluster|slot-stats new - slow
        cluster|slots - - slow
        cluster|syncslots new - admin dangerous slow
        clusterscan new key keyspace read slow
        command - - connection slow
        command|count - - connection slow
        command|docs 7.0 - connection slow
        command|getkeys - - connection slow
        command|getkeysandflags 7.0 - connection slow
        command|help - - connection slow
        command|info - - connection slow
        command|list 7.0 - connection slow
        commandlog new - slow
        commandlog|get new - admin dangerous slow
        commandlog|help new - slow
        commandlog|len new - admin dangerous slow
        commandlog|reset new - admin dangerous slow
        config - - slow
        config|get - - admin dangerous slow
        config|help - - slow
        config|resetstat - - admin dangerous slow
        config|rewrite - - admin dangerous slow
        config|set - - admin dangerous slow
        copy 6.2 key keyspace slow write
        dbsize - - fast keyspace read
        debug - - admin dangerous slow
        decr - key fast string write
        decrby - key fast string write
        del - key keyspace slow write
        delex new key fast string write
        delifeq new key fast string write
        digest new key fast read string
        discard - - fast transaction
        dump - key keyspace read slow
        echo - - connection fast
        eval - key scripting slow
        eval_ro 7.0 key scripting slow
        evalsha - key scripting slow
        evalsha_ro 7.0 key scripting slow
        exec - - slow transaction
        exists - key fast keyspace read
        expire - key fast keyspace write
        expireat - key fast keyspace write
        expiretime 7.0 key fast keyspace read
        failover 6.2 - admin dangerous slow
        fcall 7.0 key scripting slow
        fcall_ro 7.0 key scripting slow
        flushall - - dangerous keyspace slow write
        flushdb - - dangerous keyspace slow write
        function 7.0 - slow
        function|delete 7.0 - scripting slow write
        function|dump 7.0 - scripting slow
        function|flush 7.0 - scripting slow write
        function|help 7.0 - scripting slow
        function|kill 7.0 - scripting slow
        function|list 7.0 - scripting slow
        function|load 7.0 - scripting slow write
        function|restore 7.0 - scripting slow write
        function|stats 7.0 - scripting slow
        geoadd - key geo slow write
        geodist - key geo read slow
        geohash - key geo read slow
        geopos - key geo read slow
        georadius - key geo slow write
        georadius_ro - key geo read slow
        georadiusbymember - key geo slow write
        georadiusbymember_ro - key geo read slow
        geosearch 6.2 key geo read slow
        geosearchstore 6.2 key geo slow write
        get - key fast read string
        getbit - key bitmap fast read
        getdel 6.2 key fast string write
        getex 6.2 key fast string write
        getrange - key read slow string
        getset - key fast string write
        hdel - key fast hash write
        hello 6.0 - connection fast
        hexists - key fast hash read
        hexpire new key fast hash write
        hexpireat new key fast hash write
        hexpiretime new key fast hash read
        hget - key fast hash read
        hgetall - key hash read slow
        hgetdel new key fast hash write
        hgetex new key fast hash write
        hincrby - key fast hash write
        hincrbyfloat - key fast hash write
        hkeys - key hash read slow
        hlen - key fast hash read
        hmget - key fast hash read
        hmset - key fast hash write
        hpersist new key fast hash write
        hpexpire new key fast hash write
        hpexpireat new key fast hash write
        hpexpiretime new key fast hash read
        hpttl new key fast hash read
        hrandfield 6.2 key hash read slow
        hscan - key hash read slow
        hset - key fast hash write
        hsetex new key fast hash write
        hsetnx - key fast hash write
        hstrlen - key fast hash read
        httl new key fast hash read
        hvals - key hash read slow
        incr - key fast string write
        incrby - key fast string write
        incrbyfloat - key fast string write
        info - - dangerous slow
        keys - - dangerous keyspace read slow
        lastsave - - admin dangerous fast
        latency - - slow
        latency|doctor - - admin dangerous slow
        latency|graph - - admin dangerous slow
        latency|help - - slow
        latency|histogram 7.0 - admin dangerous slow
        latency|history - - admin dangerous slow
        latency|latest - - admin dangerous slow
        latency|reset - - admin dangerous slow
        lcs 7.0 key read slow string
        lindex - key list read slow
        linsert - key list slow write
        llen - key fast list read
        lmove 6.2 key list slow write
        lmpop 7.0 key list slow write
        lolwut - - fast read
        lpop - key fast list write
        lpos 6.0 key list read slow
        lpush - key fast list write
        lpushx - key fast list write
        lrange - key list read slow
        lrem - key list slow write
        lset - key list slow write
        ltrim - key list slow write
        memory - - slow
        memory|doctor - - slow
        memory|help - - slow
        memory|malloc-stats - - slow
        memory|purge - - slow
        memory|stats - - slow
        memory|usage - key read slow
        mget - key fast read string
        migrate - key dangerous keyspace slow write
        module - - slow
        module|help - - slow
        module|list - - admin dangerous slow
        module|load - - admin dangerous slow
        module|loadex 7.0 - admin dangerous slow
        module|unload - - admin dangerous slow
        monitor - - admin dangerous slow
        move - key fast keyspace write
        mset - key slow string write
        msetex new key slow string write
        msetnx - key slow string write
        multi - - fast transaction
        object - - slow
        object|encoding - key keyspace read slow
        object|freq - key keyspace read slow
        object|help 6.2 - keyspace slow
        object|idletime - key keyspace read slow
        object|refcount - key keyspace read slow
        persist - key fast keyspace write
        pexpire - key fast keyspace write
        pexpireat - key fast keyspace write
        pexpiretime 7.0 key fast keyspace read
        pfadd - key fast hyperloglog write
        pfcount - key hyperloglog read slow
        pfdebug - key admin dangerous hyperloglog slow write
        pfmerge - key hyperloglog slow write
        pfselftest - - admin dangerous hyperloglog slow
        ping - - connection fast
        psetex - key slow string write
        psubscribe - - pubsub slow
        psync - - admin dangerous slow
        pttl - key fast keyspace read
        publish - - fast pubsub
        pubsub - - slow
        pubsub|channels - - pubsub slow
        pubsub|help 6.2 - slow
        pubsub|numpat - - pubsub slow
        pubsub|numsub - - pubsub slow
        pubsub|shardchannels 7.0 - pubsub slow
        pubsub|shardnumsub 7.0 - pubsub slow
        punsubscribe - - pubsub slow
        quit - - connection fast
        randomkey - - keyspace read slow
        readonly - - connection fast
        readwrite - - connection fast
        rename - key keyspace slow write
        renamenx - key fast keyspace write
        replconf - - admin dangerous slow
        replicaof - - admin dangerous slow
        reset 6.2 - connection fast
        restore - key dangerous keyspace slow write
        restore-asking - key dangerous keyspace slow write
        role - - admin dangerous fast
        rpop - key fast list write
        rpoplpush - key list slow write
        rpush - key fast list write
        rpushx - key fast list write
        sadd - key fast set write
        save - - admin dangerous slow
        scan - - keyspace read slow
        scard - key fast read set
        script - - slow
        script|debug - - scripting slow
        script|exists - - scripting slow
        script|flush - - scripting slow
        script|help - - scripting slow
        script|kill - - scripting slow
        script|load - - scripting slow
        script|show new - scripting slow
        sdiff - key read set slow
        sdiffstore - key set slow write
        select - - connection fast
        set - key slow string write
        setbit - key bitmap slow write
        setex - key slow string write
        setnx - key fast string write
        setrange - key slow string write
        shutdown - - admin dangerous slow
        sinter - key read set slow
        sintercard 7.0 key read set slow
        sinterstore - key set slow write
        sismember - key fast read set
        slaveof - - admin dangerous slow
        slowlog - - slow
        slowlog|get - - admin dangerous slow
        slowlog|help 6.2 - slow
        slowlog|len - - admin dangerous slow
        slowlog|reset - - admin dangerous slow
        smembers - key read set slow
        smismember 6.2 key fast read set
        smove - key fast set write
        sort - key dangerous list set slow sortedset write
        sort_ro 7.0 key dangerous list read set slow sortedset
        spop - key fast set write
        spublish 7.0 key fast pubsub
        srandmember - key read set slow
        srem - key fast set write
        sscan - key read set slow
        ssubscribe 7.0 key pubsub slow
        strlen - key fast read string
        subscribe - - pubsub slow
        substr - key read slow string
        sunion - key read set slow
        sunionstore - key set slow write
        sunsubscribe 7.0 key pubsub slow
        swapdb - - dangerous fast keyspace write
        sync - - admin dangerous slow
        time - - fast
        touch - key fast keyspace read
        ttl - key fast keyspace read
        type - key fast keyspace read
        unlink - key fast keyspace write
        unsubscribe - - pubsub slow
        unwatch - - fast transaction
        vadd new key slow write
        vcard new key fast read
        vdim new key fast read
        vemb new key fast read
        vgetattr new key fast read
        vinfo new key fast read
        vismember new key fast read
        vlinks new key fast read
        vrandmember new key fast read
        vrange new key fast read
        vrem new key fast write
        vsetattr new key fast write
        vsim new key slow read
        wait - - connection slow
        waitaof 7.2 - blocking connection slow
        watch - key fast transaction
        xack - key fast stream write
        xackdel new key fast stream write
        xadd - key fast stream write
        xautoclaim 6.2 key fast stream write
        xcfgset new key fast stream write
        xclaim - key fast stream write
        xdel - key fast stream write
        xdelex new key fast stream write
        xgroup - - slow
        xgroup|create - key slow stream write
        xgroup|createconsumer 6.2 key slow stream write
        xgroup|delconsumer - key slow stream write
        xgroup|destroy - key slow stream write
        xgroup|help - - slow stream
        xgroup|setid - key slow stream write
        xinfo - - slow
        xinfo|consumers - key read slow stream
        xinfo|groups - key read slow stream
        xinfo|help - - slow stream
        xinfo|stream - key read slow stream
        xlen - key fast read stream
        xpending - key read slow stream
        xrange - key read slow stream
        xread - key blocking read slow stream
        xreadgroup - key blocking slow stream write
        xrevrange - key read slow stream
        xsetid - key fast stream write
        xtrim - key slow stream write
        zadd - key fast sortedset write
        zcard - key fast read sortedset
        zcount - key fast read sortedset
        zdiff 6.2 key read slow sortedset
        zdiffstore 6.2 key slow sortedset write
        zincrby - key fast sortedset write
        zinter 6.2 key read slow sortedset
        zintercard 7.0 key read slow sortedset
        zinterstore - key slow sortedset write
        zlexcount - key fast read sortedset
        zmpop 7.0 key slow sortedset write
        zmscore 6.2 key fast read sortedset
        zpopmax - key fast sortedset write
        zpopmin - key fast sortedset write
        zrandmember 6.2 key read slow sortedset
        zrange - key read slow sortedset
        zrangebylex - key read slow sortedset
        zrangebyscore - key read slow sortedset
        zrangestore 6.2 key slow sortedset write
        zrank - key fast read sortedset
        zrem - key fast sortedset write
        zremrangebylex - key slow sortedset write
        zremrangebyrank - key slow sortedset write
        zremrangebyscore - key slow sortedset write
        zrevrange - key read slow sortedset
        zrevrangebylex - key read slow sortedset
        zrevrangebyscore - key read slow sortedset
        zrevrank - key fast read sortedset
        zscan - key read slow sortedset
        zscore - key fast read sortedset
        zunion 6.2 key read slow sortedset
        zunionstore - key slow sortedset write
        """
}
