//! The QUIC settings.

use std::sync::Arc;

use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};

use crate::bounds::{DATAGRAM_BUFFER, INCOMING, INCOMING_BYTES, SEND_WINDOW, STREAM_WINDOW, UDP_PAYLOAD};
use crate::config::Timings;

/// One stream each way, keep-alives, and windows for bulk transfer.
pub(crate) fn transport(timings: &Timings) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(UDP_PAYLOAD);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        // A time that is too long for QUIC's encoding is practically infinite.
        .max_idle_timeout(IdleTimeout::try_from(timings.idle).ok())
        .keep_alive_interval(Some(timings.keep_alive))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .mtu_discovery_config(Some(mtu))
        // BBR reacts to what arrives and not to what is lost. At 30 % random packet loss, a change reaches the other nodes ten
        // times sooner than with Cubic, which takes every loss for congestion. Without losses both are equally fast.
        .congestion_controller_factory(Arc::new(BbrConfig::default()));
    config
}

/// Settings for all connections of the endpoint.
pub(crate) fn endpoint() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    if let Err(error) = config.max_udp_payload_size(UDP_PAYLOAD) {
        tracing::debug!(%error, "keeping QUIC's own payload size");
    }
    config
}

/// Settings for incoming connections.
pub(crate) fn server(tls: QuicServerConfig, transport: Arc<TransportConfig>) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(transport)
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES * INCOMING as u64)
        // Nodes have fixed addresses, so a connection does not follow packets from another address.
        .migration(false);
    config
}
