// The door through which other threads reach a loop.
//
//     any thread ── post ──► [messages] ── ev_async ──► the loop's thread ── handler([messages])
//
// The lock is held only to append to, or to swap, an array. The bell rings once per batch: a post
// onto a box that is not empty finds the bell rung already.

import CEv
import Synchronization

/// Carries values into one loop. Made anywhere, attached on the loop's thread, posted to from any.
///
/// Unbounded by itself: what bounds it is what its senders own, such as descriptors.
package final class Mailbox<Message: Sendable>: Sendable {
    private struct State {
        var messages: [Message] = []
        var bell: Bell?
        var isClosed = false
    }

    private let state = Mutex(State())

    /// An empty box; what is posted before `attach` waits for it.
    package init() {}

    /// Adds a message for the loop; the handler gets it in its next turn.
    ///
    /// - Returns: false when the box is closed; the message is then still the caller's, who must
    ///   release what it carries, such as a descriptor.
    @discardableResult
    package func post(_ message: Message) -> Bool {
        state.withLock { state in
            if state.isClosed { return false }
            state.messages.append(message)
            if state.messages.count == 1 { state.bell?.ring() }
            return true
        }
    }

    /// Delivers everything posted, in order and in batches, to `handler` on the loop's thread.
    ///
    /// Called once, on that thread. The handler is kept until `close()`.
    package func attach(to loop: EventLoop, handler: @escaping ([Message]) -> Void) {
        let bell = Bell(loop: loop)
        bell.onRing = { [weak self] in
            guard let self else { return }
            let batch = self.state.withLock { state in
                let batch = state.messages
                state.messages = []
                return batch
            }
            if !batch.isEmpty { handler(batch) }
        }
        let transfer = UncheckedTransfer(bell)
        state.withLock { state in
            precondition(state.bell == nil && !state.isClosed, "a mailbox is attached once")
            state.bell = transfer.value
            if !state.messages.isEmpty { transfer.value.ring() }
        }
    }

    /// Ends delivery; on the loop's thread, before the loop is dropped. May be called twice.
    ///
    /// - Returns: the messages that were posted and never delivered, in order.
    @discardableResult
    package func close() -> [Message] {
        let (bell, rest) = state.withLock { state in
            let result = (UncheckedTransfer(state.bell), state.messages)
            state.bell = nil
            state.messages = []
            state.isClosed = true
            return result
        }
        bell.value?.stop()
        return rest
    }
}

/// An ev_async with its closure. Everything but `ring` belongs to the loop's thread.
private final class Bell: @unchecked Sendable {
    private let watcher: UnsafeMutablePointer<ev_async>
    private let loop: OpaquePointer
    private var isStopped = false
    var onRing: () -> Void = {}

    init(loop: EventLoop) {
        self.loop = loop.raw
        watcher = UnsafeMutablePointer.allocate(capacity: 1)
        watcher.initialize(to: ev_async())
        cev_async_init(watcher) { _, watcher, _ in
            guard let data = watcher?.pointee.data else { return }
            Unmanaged<Bell>.fromOpaque(data).takeUnretainedValue().onRing()
        }
        watcher.pointee.data = Unmanaged.passUnretained(self).toOpaque()
        ev_async_start(self.loop, watcher)
    }

    /// Wakes the loop; from any thread, with the mailbox's lock held, so never after `stop`.
    func ring() { ev_async_send(loop, watcher) }

    func stop() {
        if isStopped { return }
        isStopped = true
        ev_async_stop(loop, watcher)
    }

    deinit {
        precondition(isStopped, "close a mailbox on its loop's thread before it is dropped")
        watcher.deallocate()
    }
}

/// Carries a value across a closure that is declared Sendable but runs in place.
private struct UncheckedTransfer<Value>: @unchecked Sendable {
    let value: Value

    init(_ value: Value) { self.value = value }
}
