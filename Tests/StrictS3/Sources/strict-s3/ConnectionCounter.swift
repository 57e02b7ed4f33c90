import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// Counts open connections, and gives each a receive buffer that suits bodies of 100 MiB.
final class ConnectionCounter: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart

    private let store: Store
    private var isCounted = false

    init(store: Store) { self.store = store }

    func handlerAdded(context: ChannelHandlerContext) {
        let allocator = AdaptiveRecvByteBufferAllocator(minimum: 4096, initial: 65536, maximum: 1 << 20)
        _ = context.channel.setOption(ChannelOptions.recvAllocator, value: allocator)
        if context.channel.isActive { count() }
    }

    func channelActive(context: ChannelHandlerContext) {
        count()
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        if isCounted { store.journal.withLock { $0.connectionClosed() } }
        isCounted = false
        context.fireChannelInactive()
    }

    private func count() {
        guard !isCounted else { return }
        isCounted = true
        store.journal.withLock { $0.connectionOpened() }
    }
}
