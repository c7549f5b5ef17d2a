// What an answer of ACL GETUSER amounts to, as an access string.

import Configuration

extension AccessString {
    /// - Parameter answer: to ACL GETUSER; its passwords are left where they are.
    init(ofUser answer: ServerReply) {
        var rules: [String] = []
        for flag in answer.value("flags")?.items?.compactMap(\.string) ?? []
        where ["on", "off", "nopass"].contains(flag) {
            rules.append(flag)
        }
        rules += Self.scope(answer)
        for selector in answer.value("selectors")?.items ?? [] {
            rules.append("(\(Self.scope(selector).joined(separator: " ")))")
        }
        self.init(rules.joined(separator: " "), isFromServer: true)
    }

    /// Redis 7 answers with texts as they are written, Redis 6 with lists of patterns.
    private static func scope(_ reply: ServerReply) -> [String] {
        var rules: [String] = []
        for (name, sign) in [("keys", "~"), ("channels", "&")] {
            switch reply.value(name) {
            case .list(let patterns): rules += patterns.compactMap(\.string).map { sign + $0 }
            case let value?: rules += [value.string ?? ""]
            case nil: break
            }
        }
        for name in ["databases", "commands"] { rules += [reply.value(name)?.string ?? ""] }
        return rules.filter { !$0.isEmpty }
    }
}

extension ServerUserState {
    /// - Parameter answer: to ACL GETUSER.
    init(ofUser answer: ServerReply) {
        func texts(_ name: String) -> Set<String> {
            Set(answer.value(name)?.items?.compactMap(\.string) ?? [])
        }
        self.init(
            access: AccessString(ofUser: answer), passwords: texts("passwords"),
            flags: texts("flags"), hasDatabases: answer.value("databases") != nil)
    }
}
