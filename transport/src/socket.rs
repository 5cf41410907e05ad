//! The UDP socket.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::bounds::SOCKET_BUFFER;

/// A socket bound to `listen`, with buffers as large as the system allows, up to [`SOCKET_BUFFER`]: a burst of a whole window
/// arrives before a task wakes up.
pub(crate) fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::debug!(%error, "the socket takes IPv6 only");
    }
    // If the system refuses or reduces the size, the socket is slower but correct.
    let granted = socket
        .set_recv_buffer_size(SOCKET_BUFFER)
        .and_then(|()| socket.set_send_buffer_size(SOCKET_BUFFER))
        .and_then(|()| Ok((socket.recv_buffer_size()?, socket.send_buffer_size()?)));
    tracing::debug!(wanted = SOCKET_BUFFER, granted = ?granted, "socket buffers, receive and send");
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}
