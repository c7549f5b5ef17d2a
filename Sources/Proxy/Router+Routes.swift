// Routes that come and go while the router runs.
//
//     addRoute ──► in use ──── retire ──► retired: no new session; its connections close as they
//                    ▲                       │     are no longer needed, and it costs two idle places
//                    └──────── revive ───────┘
//
// Routes and users are numbers that sessions, connections and other threads hold, so that none is ever
// given to another: tables only grow. Rejected: numbering anew and translating what is held, which has
// to be right in every place at once. A route that comes back is revived, so that the tables are as long
// as the different rules that there ever were.
//
// Invariant: nothing that belongs to a session that stays is touched by a route that comes or goes.

package import Identity

extension Router {
    /// Appends a route, for `openSession`.
    ///
    /// - Returns: its number, one above the last.
    @discardableResult
    package func addRoute(_ route: Route) -> Int {
        let number = routes.count
        routes.append(route)
        isRetired.append(false)
        let name = route.name(behind: clientName)
        ownNames.append(name)
        sharedNames.append(name.isEmpty ? Array(clientName.utf8) : name)
        firstPools.append(pools.count)
        for version in [2, 3] as [UInt8] {
            addPool(Pool(route: number, protocolVersion: version, database: 0))
        }
        return number
    }

    /// Other pauses between attempts to connect, from the next failure on.
    package func changePauses(ofRoute route: Int, from minimum: Duration, to maximum: Duration) {
        routes[route].backoffMinimum = minimum
        routes[route].backoffMaximum = maximum
    }

    /// Another age at which connections are replaced; those that are up keep to the old one.
    package func changeMaximumAge(ofRoute route: Int, to age: Duration?) {
        routes[route].maximumAge = age
    }

    /// Other bounds from now on, also for the sessions that are there. What buffers and places were
    /// made by stays as it is.
    package func follow(_ next: Limits) {
        let old = limits
        limits = next
        limits.receiveBuffer = old.receiveBuffer
        limits.replyChunk = old.replyChunk
        limits.connectionsPerPool = old.connectionsPerPool
        // There may be room for those who wait for a connection of their own.
        settle()
    }

    /// Appends a user that routes can name; its credential is not fetched yet.
    package func addUser() -> UserIndex {
        credentials.append(nil)
        permissions.append([])
        databases.append([])
        roles.append(ServerRole())
        isPaused.append(pausesNewUsers)
        return UserIndex(credentials.count - 1)
    }

    /// No session is opened for this route from now on. Those that are there stay; `end` them if they
    /// shall not.
    package func retire(route: Int) {
        isRetired[route] = true
        closeUnneeded(route)
        settle()
    }

    /// Sessions may be opened for this route again.
    package func revive(route: Int) {
        isRetired[route] = false
    }

    /// Ends, at once, every session for which `isOver` holds; what it is owed is dropped.
    package func endSessions(where isOver: (SessionRef) -> Bool) {
        // Collected first: the end of one may be the end of others.
        var over: [SessionRef] = []
        var next = firstSession
        while let session = next {
            next = session.pointee.next
            if isOver(session) { over.append(session) }
        }
        for session in over { end(session, .noLongerAdmitted) }
        settle()
        for route in routes.indices where isRetired[route] { closeUnneeded(route) }
    }

    /// Ends one session, at once; what it is owed is dropped.
    ///
    /// - Returns: false if there is none of this number.
    package func kill(session id: UInt64) -> Bool {
        var next = firstSession
        while let session = next, session.pointee.id != id { next = session.pointee.next }
        guard let session = next else { return false }
        end(session, .killed)
        settle()
        return true
    }

    /// Closes what a retired route holds ready and has no use for. Whatever still owes something is
    /// closed by a later `trim`.
    func closeUnneeded(_ route: Int) {
        for pool in pools.indices where pools[pool].route == route {
            while let upstream = spare[pool].popLast() { dropOwn(upstream) }
            unneeded[pool] = 0
            if poolSessions[pool] == 0 { closeShared(pool) }
        }
    }
}
