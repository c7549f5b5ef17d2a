// Whether a server is part of a cluster, and of how many shards: what goes through one endpoint of it.
//
//   HELLO, mode          standalone ──► no cluster; every ACL user is told
//      │ cluster
//   CLUSTER SLOTS        the primaries that slots are to be asked for
//      │ refused
//   CLUSTER INFO         cluster_size, once the server has counted
//
// CLUSTER SLOTS comes first because it is what cluster clients go by and what a -MOVED will say:
// ElastiCache Serverless spreads keys over many shards and shows them as one node with all slots. And
// a server that has just started says cluster_size:1 of every cluster, until its state is ok (Redis,
// cluster.c, clusterUpdateState). The access string may forbid both, and then nothing tells: a
// refusal comes before a redirection (server.c, processCommand), so that not even a GET of another
// shard's key would say more.

/// What a server says of the cluster that it belongs to.
enum ClusterShape: Equatable {
    case none
    /// Slots are served by this many primaries; 0: by none at all.
    case shards(Int)
    /// It is a cluster, and its size may not be asked; the server's words.
    case unknown(String)

    /// Asks whatever it takes.
    ///
    /// - Parameters:
    ///   - hello: the answer to the login.
    ///   - ask: one command and its answer.
    init(hello: ServerReply, ask: (_ command: String, _ argument: String) -> ServerReply) {
        guard hello.value("mode")?.string == "cluster" else {
            self = .none
            return
        }
        if let primaries = Self.primaries(ask("CLUSTER", "SLOTS")) {
            self = .shards(primaries)
            return
        }
        switch ask("CLUSTER", "INFO") {
        case .text(let info): self = Self.shape(String(decoding: info, as: UTF8.self))
        case .error(let text): self = .unknown(text)
        default: self = .unknown("the answer to CLUSTER INFO makes no sense")
        }
    }

    private static func shape(_ info: String) -> ClusterShape {
        var fields: [Substring: Substring] = [:]
        for line in info.split(whereSeparator: \.isNewline) {
            let parts = line.split(separator: ":", maxSplits: 1)
            if parts.count == 2 { fields[parts[0]] = parts[1] }
        }
        if fields["cluster_slots_assigned"] == "0" { return .shards(0) }
        guard let size = fields["cluster_size"].flatMap({ Int($0) }), size > 0 else {
            return .unknown("the answer to CLUSTER INFO makes no sense")
        }
        if size == 1, fields["cluster_state"] != "ok" {
            return .unknown("its state is not ok, and then CLUSTER INFO tells no size")
        }
        return .shards(size)
    }

    /// Entries are `first slot, last slot, [address, port, …] of the primary, replicas …`.
    private static func primaries(_ slots: ServerReply) -> Int? {
        guard let entries = slots.items else { return nil }
        var nodes: Set<String> = []
        for entry in entries {
            guard let fields = entry.items, fields.count > 2, let node = fields[2].items,
                node.count > 1, case .integer(let port) = node[1]
            else { return nil }
            // No address: the one that was asked itself.
            nodes.insert("\(node[0].string ?? "") \(port)")
        }
        return nodes.count
    }
}

extension ClusterShape {
    /// What does not work through one endpoint, for the operator; nil where everything does that works
    /// without a proxy too.
    var limits: String? {
        switch self {
        case .none, .shards(1): nil
        case .shards(0):
            "it is a cluster in which no slot is served yet: every command on a key is answered"
                + " with -CLUSTERDOWN"
        case .shards(let count):
            "it is a cluster of \(count) shards, and this endpoint leads to one of them."
                + Self.behaviour
        case .unknown(let reason):
            "it is a cluster, and it could not be found out of how many shards (\(reason)). If"
                + " there are more than one, this endpoint leads to one of them." + Self.behaviour
        }
    }

    private static let behaviour =
        " What works: commands on keys of that shard, and PUBLISH and SUBSCRIBE. What does not: keys"
        + " of the others, which are answered with -MOVED or -ASK; a command on keys of several"
        + " slots, answered with -CROSSSLOT; SCAN, KEYS, DBSIZE and FLUSHALL see that shard alone."
        + " Clients get these answers as they are, and a client that knows clusters follows them"
        + " past the proxy, without TLS and password"

    /// What to do about `limits`.
    var remedy: String? {
        switch self {
        case .none, .shards(1): nil
        case .shards(0): "add slots to the cluster, or wait until it is made"
        case .shards:
            "use a server without cluster mode, a cluster of one shard or ElastiCache Serverless,"
                + " which answers for all shards at one endpoint; or keep each listener to clients"
                + " whose keys share a slot, such as {app}:…"
        case .unknown:
            "ask as an administrator (CLUSTER SLOTS), or allow the user +cluster|slots"
                + " and run doctor"
        }
    }
}
