// Memory with an unreadable page on either side, so that a framer that looks one byte too far, in
// either direction, ends the test process.
//
//     │ no access │ bytes …            │ no access │      placed at the front
//     │ no access │            … bytes │ no access │      placed at the back

import Glibc

/// A region for one thread's use; bytes are copied in anew for each look at them.
final class FencedMemory {
    private let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    private let size: Int
    /// The most bytes that can be placed.
    var capacity: Int { size }
    private let base: UnsafeMutableRawPointer

    init(capacity: Int) {
        size = (capacity + page - 1) / page * page
        guard
            let mapped = mmap(
                nil, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            mapped != MAP_FAILED,
            mprotect(mapped + page, size, PROT_READ | PROT_WRITE) == 0
        else { fatalError("no memory for a fenced buffer: errno \(errno)") }
        base = mapped
    }

    deinit { munmap(base, size + 2 * page) }

    /// A copy of `bytes` with a fence right before it, or right behind it.
    func place(_ bytes: ArraySlice<UInt8>, atFront: Bool) -> UnsafeRawPointer {
        precondition(bytes.count <= size)
        let target = atFront ? base + page : base + page + size - bytes.count
        bytes.withUnsafeBytes { source in
            if let address = source.baseAddress {
                target.copyMemory(from: address, byteCount: source.count)
            }
        }
        return UnsafeRawPointer(target)
    }
}
