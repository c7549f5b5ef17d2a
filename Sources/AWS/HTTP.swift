// HTTP by libcurl: one request at a time on the calling thread, which is never one of the data
// plane's.
//
// Bodies and header values may be secrets: they are collected in buffers that wipe themselves, and
// the list of headers that libcurl reads is overwritten before it is freed. What libcurl keeps in
// its own memory while a request is under way is beyond our reach.
//
// Redirects are never followed: whatever is asked here holds or gets credentials, and no service
// asked here sends any. A new handle for each request, and so a new connection: requests are minutes
// apart.

import CCurl
import Glibc
package import Identity
import Synchronization

/// What to ask, and how long to wait.
package struct HTTPRequest: Sendable {
    package enum Method: String, Sendable {
        case get = "GET"
        case put = "PUT"
        case post = "POST"
    }

    package var method: Method
    package var url: String
    package var headers: [HTTPHeader]
    package var body: Secret?
    package var connectTimeout: Duration = .seconds(5)
    /// For all of it; nil: as long as it takes.
    package var timeout: Duration? = .seconds(10)
    /// Whether the environment's proxies (`https_proxy` and so on) apply.
    package var usesProxy = true
    /// A Unix socket to connect to, in place of what the URL's host stands for.
    package var socketPath: String?

    package init(
        _ method: Method, _ url: String, headers: [HTTPHeader] = [], body: Secret? = nil
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
    }
}

/// What was answered, whatever the status.
package struct HTTPResponse: Sendable {
    package let status: Int
    /// Names in lower case; of repeated ones the last.
    package let headers: [String: String]
    package let body: Secret
}

/// Sends requests.
package final class HTTPClient: Sendable {
    /// Largest answer that is accepted, in bytes: a secret has at most 64 KiB, as JSON in JSON.
    static let bodyLimit = 1 << 20

    /// Certificates to trust in place of the system's (`AWS_CA_BUNDLE`): a PEM file.
    private let caBundle: String?
    package let cancellation: Cancellation

    package init(caBundle: String? = nil, cancellation: Cancellation = Cancellation()) {
        self.caBundle = caBundle
        self.cancellation = cancellation
    }

    // Not thread-safe in itself; a static is initialised once.
    private static let isReady = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

    /// One exchange. Throws `unavailable` for whatever keeps an answer from coming whole.
    package func send(_ request: HTTPRequest) throws(AWSFailure) -> HTTPResponse {
        guard !cancellation.isCancelled else { throw .cancelled }
        guard Self.isReady, let handle = curl_easy_init() else {
            throw AWSFailure(.unavailable, "libcurl cannot be initialised")
        }
        defer { curl_easy_cleanup(handle) }
        var list: UnsafeMutablePointer<curl_slist>?
        defer { Self.wipeAndFree(list) }
        // Expect would cost a round trip, and nobody here wants it.
        list = curl_slist_append(list, "Expect:")
        for header in request.headers {
            guard Self.append(header, to: &list) else {
                throw AWSFailure(
                    .refused,
                    "\(header.name) for \(Self.place(request)): wanted a value of one line, got a"
                        + " line break or NUL in it")
            }
        }

        let transfer = Transfer(cancellation)
        let context = Unmanaged.passUnretained(transfer).toOpaque()
        ccurl_set_string(handle, CURLOPT_URL, request.url)
        ccurl_set_http_only(handle)
        ccurl_set_headers(handle, list)
        ccurl_set_string(handle, CURLOPT_USERAGENT, "redis-auth-proxy")
        ccurl_set_long(handle, CURLOPT_NOSIGNAL, 1)
        ccurl_set_long(handle, CURLOPT_FOLLOWLOCATION, 0)
        ccurl_set_long(
            handle, CURLOPT_CONNECTTIMEOUT_MS, max(1, Int(request.connectTimeout.milliseconds)))
        // 0 is no limit.
        ccurl_set_long(
            handle, CURLOPT_TIMEOUT_MS, request.timeout.map { max(1, Int($0.milliseconds)) } ?? 0)
        ccurl_set_long(handle, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2)
        if !request.usesProxy { ccurl_set_string(handle, CURLOPT_NOPROXY, "*") }
        if let path = request.socketPath {
            ccurl_set_string(handle, CURLOPT_UNIX_SOCKET_PATH, path)
        }
        if let caBundle { ccurl_set_string(handle, CURLOPT_CAINFO, caBundle) }
        ccurl_set_long(handle, CURLOPT_NOPROGRESS, 0)
        ccurl_set_pointer(handle, CURLOPT_XFERINFODATA, context)
        ccurl_set_progress(handle) { context, _, _, _, _ in
            guard let context else { return 1 }
            let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
            return transfer.cancellation.isCancelled ? 1 : 0
        }
        ccurl_set_pointer(handle, CURLOPT_WRITEDATA, context)
        ccurl_set_receive(handle, CURLOPT_WRITEFUNCTION) { bytes, size, count, context in
            guard let context, let bytes else { return 0 }
            let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
            let length = size * count
            guard transfer.body.count + length <= HTTPClient.bodyLimit else {
                transfer.isTooLong = true
                return 0
            }
            transfer.body.append(UnsafeRawBufferPointer(start: bytes, count: length))
            return length
        }
        ccurl_set_pointer(handle, CURLOPT_HEADERDATA, context)
        ccurl_set_receive(handle, CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
            guard let context, let bytes else { return 0 }
            let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
            transfer.takeHeader(UnsafeRawBufferPointer(start: bytes, count: size * count))
            return size * count
        }
        let code: CURLcode
        let noBody = Secret([])
        let body = request.body ?? noBody
        code = body.withBytes { bytes in
            if request.method != .get {
                ccurl_set_string(handle, CURLOPT_CUSTOMREQUEST, request.method.rawValue)
                ccurl_set_long(handle, CURLOPT_POSTFIELDSIZE, bytes.count)
                // Read during curl_easy_perform and not copied.
                ccurl_set_pointer(
                    handle, CURLOPT_POSTFIELDS, UnsafeMutableRawPointer(mutating: bytes.baseAddress)
                )
            }
            return curl_easy_perform(handle)
        }
        guard code == CURLE_OK else {
            if cancellation.isCancelled { throw .cancelled }
            let reason =
                transfer.isTooLong
                ? "the answer is longer than \(Self.bodyLimit) bytes"
                : String(cString: curl_easy_strerror(code))
            throw AWSFailure(
                code == CURLE_SSL_CACERT_BADFILE ? .refused : .unavailable,
                "\(Self.place(request)): \(reason)\(remedy(code))")
        }
        var status = 0
        ccurl_get_long(handle, CURLINFO_RESPONSE_CODE, &status)
        return HTTPResponse(
            status: status, headers: transfer.headers, body: transfer.body.secret())
    }

    private func remedy(_ code: CURLcode) -> String {
        switch code {
        case CURLE_SSL_CACERT_BADFILE where caBundle != nil:
            ": AWS_CA_BUNDLE names \(caBundle ?? "")"
        case CURLE_PEER_FAILED_VERIFICATION:
            ": its certificate is not vouched for by "
                + (caBundle.map { "\($0) (AWS_CA_BUNDLE)" } ?? "the system's certificates")
        default: ""
        }
    }

    /// Scheme, host and port, for messages: paths can name roles and secrets.
    static func place(_ request: HTTPRequest) -> String {
        let parts = request.url.split(
            separator: "/", maxSplits: 3, omittingEmptySubsequences: false)
        return parts.count >= 3 ? "\(parts[0])//\(parts[2])" : "the endpoint"
    }

    /// False: the value cannot be a header's.
    private static func append(
        _ header: HTTPHeader, to list: inout UnsafeMutablePointer<curl_slist>?
    ) -> Bool {
        header.value.withBytes { value in
            guard !value.contains(where: { $0 == 0 || $0 == 0x0a || $0 == 0x0d }) else {
                return false
            }
            var line = WipedBuffer(capacity: 256)
            line.append(header.name)
            line.append(value.isEmpty ? ";" : ": ")
            line.append(value)
            line.append(byte: 0)
            line.withBytes { line in
                list = curl_slist_append(
                    list, line.bindMemory(to: CChar.self).baseAddress)
            }
            return true
        }
    }

    private static func wipeAndFree(_ list: UnsafeMutablePointer<curl_slist>?) {
        var node = list
        while let current = node {
            if let data = current.pointee.data { explicit_bzero(data, strlen(data)) }
            node = current.pointee.next
        }
        curl_slist_free_all(list)
    }
}

/// What one exchange has brought so far; touched by the thread that performs it only.
private final class Transfer {
    let cancellation: Cancellation
    var headers: [String: String] = [:]
    var body = WipedBuffer(capacity: 16_384)
    var isTooLong = false

    init(_ cancellation: Cancellation) {
        self.cancellation = cancellation
    }

    func takeHeader(_ bytes: UnsafeRawBufferPointer) {
        let line = String(decoding: bytes, as: UTF8.self)
        // A status line: what came before belonged to an interim answer.
        if line.hasPrefix("HTTP/") {
            headers = [:]
            return
        }
        guard let colon = line.firstIndex(of: ":"), headers.count < 100 else { return }
        let value = line[line.index(after: colon)...]
        headers[line[..<colon].lowercased()] = value.trimmed()
    }
}

extension StringProtocol {
    /// Without blanks and line breaks at both ends.
    func trimmed() -> String {
        var rest = self[...]
        while let first = rest.unicodeScalars.first, first.isBlank { rest = rest.dropFirst() }
        while let last = rest.unicodeScalars.last, last.isBlank { rest = rest.dropLast() }
        return String(rest)
    }
}

extension Unicode.Scalar {
    fileprivate var isBlank: Bool { self == " " || self == "\t" || self == "\n" || self == "\r" }
}

/// The date of an HTTP header such as `Sun, 06 Nov 1994 08:49:37 GMT`.
func httpDate(_ text: String) -> WallTime? {
    let seconds = curl_getdate(text, nil)
    return seconds < 0 ? nil : WallTime(seconds: Int64(seconds))
}
