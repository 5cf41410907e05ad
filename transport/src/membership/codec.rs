//! Encodes and decodes membership datagrams.

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};
use serde::{Deserialize, Serialize};

use crate::membership::id::Id;

/// The header of a datagram in postcard. foca's own types are translated, so that foca's next version cannot change the wire
/// format by accident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WireHeader {
    src: Id,
    refutation: u16,
    dst: Id,
    message: WireMessage,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum WireMessage {
    Ping(u8),
    Ack(u8),
    PingReq(Id, u8),
    IndirectPing(Id, u8),
    IndirectAck(Id, u8),
    ForwardedAck(Id, u8),
    Announce,
    Feed,
    Gossip,
    Broadcast,
    TurnUndead,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WireMember {
    id: Id,
    refutation: u16,
    state: WireState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum WireState {
    Alive,
    Suspect,
    Down,
}

/// A membership datagram: its sender, and the sender's statements about members.
#[derive(Debug, Clone)]
pub(super) struct Datagram {
    pub(super) header: Header<Id>,
    pub(super) members: Vec<Member<Id>>,
}

impl Datagram {
    /// Reads a complete datagram. Bytes after the last member are an error.
    pub(super) fn read(mut data: &[u8]) -> Result<Self, CodecError> {
        let header = IdCodec.decode_header(&mut data)?;
        let mut members = Vec::new();
        if !data.is_empty() {
            if header.message == Message::Announce || data.len() < 2 {
                return Err(CodecError::Trailing(data.len()));
            }
            let count = data.get_u16();
            for _ in 0..count {
                members.push(IdCodec.decode_member(&mut data)?);
            }
            if !data.is_empty() {
                return Err(CodecError::Trailing(data.len()));
            }
        }
        Ok(Self { header, members })
    }

    /// The bytes of the header alone.
    pub(super) fn write_header(header: &Header<Id>) -> Result<Vec<u8>, CodecError> {
        let mut data = Vec::new();
        IdCodec.encode_header(header, &mut data)?;
        Ok(data)
    }

    /// The bytes of the datagram.
    pub(super) fn write(&self) -> Result<Vec<u8>, CodecError> {
        let mut data = Self::write_header(&self.header)?;
        data.put_u16(u16::try_from(self.members.len()).map_err(|_| CodecError::Room(self.members.len()))?);
        for member in &self.members {
            IdCodec.encode_member(member, &mut data)?;
        }
        Ok(data)
    }
}

/// Why a header or member could not be decoded or encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("{0}")]
    Postcard(#[from] postcard::Error),
    #[error("there is no room for {0} bytes more")]
    Room(usize),
    #[error("{0} bytes follow where the datagram should end")]
    Trailing(usize),
    #[error("the identity {0} cannot be one")]
    Impossible(String),
}

/// Translates between foca and the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdCodec;

impl Codec<Id> for IdCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Id>, buf: impl BufMut) -> Result<(), CodecError> {
        let wire = WireHeader {
            src: header.src.clone(),
            refutation: header.src_incarnation,
            dst: header.dst.clone(),
            message: to_wire(&header.message),
        };
        put(&wire, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Id>, CodecError> {
        let wire: WireHeader = get(buf)?;
        let message = from_wire(wire.message)?;
        possible(&wire.src)?;
        possible(&wire.dst)?;
        Ok(Header { src: wire.src, src_incarnation: wire.refutation, dst: wire.dst, message })
    }

    fn encode_member(&mut self, member: &Member<Id>, buf: impl BufMut) -> Result<(), CodecError> {
        let state = match member.state() {
            State::Alive => WireState::Alive,
            State::Suspect => WireState::Suspect,
            State::Down => WireState::Down,
        };
        put(&WireMember { id: member.id().clone(), refutation: member.incarnation(), state }, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Id>, CodecError> {
        let wire: WireMember = get(buf)?;
        possible(&wire.id)?;
        let state = match wire.state {
            WireState::Alive => State::Alive,
            WireState::Suspect => State::Suspect,
            WireState::Down => State::Down,
        };
        Ok(Member::new(wire.id, wire.refutation, state))
    }
}

fn put<T: Serialize>(value: &T, mut buf: impl BufMut) -> Result<(), CodecError> {
    let bytes = postcard::to_stdvec(value)?;
    if bytes.len() > buf.remaining_mut() {
        return Err(CodecError::Room(bytes.len()));
    }
    buf.put_slice(&bytes);
    Ok(())
}

/// Reads a value from the front. The buffer is the datagram, which is contiguous.
fn get<T: for<'de> Deserialize<'de>>(mut buf: impl Buf) -> Result<T, CodecError> {
    let before = buf.chunk().len();
    let (value, rest) = postcard::take_from_bytes(buf.chunk())?;
    let used = before - rest.len();
    buf.advance(used);
    Ok(value)
}

fn possible(id: &Id) -> Result<(), CodecError> {
    if id.is_possible() { Ok(()) } else { Err(CodecError::Impossible(format!("{id:?}"))) }
}

fn to_wire(message: &Message<Id>) -> WireMessage {
    match message.clone() {
        Message::Ping(number) => WireMessage::Ping(number),
        Message::Ack(number) => WireMessage::Ack(number),
        Message::PingReq { target, probe_number } => WireMessage::PingReq(target, probe_number),
        Message::IndirectPing { origin, probe_number } => WireMessage::IndirectPing(origin, probe_number),
        Message::IndirectAck { target, probe_number } => WireMessage::IndirectAck(target, probe_number),
        Message::ForwardedAck { origin, probe_number } => WireMessage::ForwardedAck(origin, probe_number),
        Message::Announce => WireMessage::Announce,
        Message::Feed => WireMessage::Feed,
        Message::Gossip => WireMessage::Gossip,
        Message::Broadcast => WireMessage::Broadcast,
        Message::TurnUndead => WireMessage::TurnUndead,
    }
}

fn from_wire(message: WireMessage) -> Result<Message<Id>, CodecError> {
    if let WireMessage::PingReq(id, _)
    | WireMessage::IndirectPing(id, _)
    | WireMessage::IndirectAck(id, _)
    | WireMessage::ForwardedAck(id, _) = &message
    {
        possible(id)?;
    }
    Ok(match message {
        WireMessage::Ping(number) => Message::Ping(number),
        WireMessage::Ack(number) => Message::Ack(number),
        WireMessage::PingReq(target, probe_number) => Message::PingReq { target, probe_number },
        WireMessage::IndirectPing(origin, probe_number) => Message::IndirectPing { origin, probe_number },
        WireMessage::IndirectAck(target, probe_number) => Message::IndirectAck { target, probe_number },
        WireMessage::ForwardedAck(origin, probe_number) => Message::ForwardedAck { origin, probe_number },
        WireMessage::Announce => Message::Announce,
        WireMessage::Feed => Message::Feed,
        WireMessage::Gossip => Message::Gossip,
        WireMessage::Broadcast => Message::Broadcast,
        WireMessage::TurnUndead => Message::TurnUndead,
    })
}
