//! Conversion of common fields: texts, ids, spans, lists, addresses, errors.

use std::net::{IpAddr, SocketAddr};

use crate::core::error::{Code, Error};
use crate::core::units::Span;
use crate::core::wire::control::WireMessage;
use crate::core::wire::limits::{NAME_BYTES_MAX, NODES_MAX, RAILS_MAX, SPANS_MAX, TEXT_BYTES_MAX};
use crate::core::wire::{WireError, proto};

/// Spans as a flat list of numbers: start and length, start and length.
pub(super) type SpanPairs = Vec<u64>;

pub(super) fn pairs(spans: &[Span]) -> SpanPairs {
    spans.iter().flat_map(|span| [span.start, span.bytes()]).collect()
}

pub(super) fn pair(span: Span) -> SpanPairs {
    pairs(&[span])
}

/// Decodes a list of spans, none of them empty, in any order.
pub(super) fn spans(field: &'static str, pairs: &SpanPairs) -> Result<Vec<Span>, WireError> {
    let (pairs, rest) = pairs.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(WireError::Contradiction { field });
    }
    within(field, pairs.len(), SPANS_MAX)?;
    pairs.iter().map(|&[start, bytes]| span_of(field, start, bytes)).collect()
}

/// Decodes a sorted list of disjoint spans, as [`crate::core::units::subtract`] takes it.
pub(super) fn apart(field: &'static str, pairs: &SpanPairs) -> Result<Vec<Span>, WireError> {
    let spans = spans(field, pairs)?;
    let sorted = spans.is_sorted_by(|left, right| left.end <= right.start);
    if sorted { Ok(spans) } else { Err(WireError::Contradiction { field }) }
}

/// Decodes exactly one span.
pub(super) fn span(field: &'static str, pairs: &SpanPairs) -> Result<Span, WireError> {
    match pairs.as_slice() {
        &[start, bytes] => span_of(field, start, bytes),
        [] => Err(WireError::Missing { field }),
        _ => Err(WireError::Contradiction { field }),
    }
}

/// Decodes the range of a row: exactly one span, empty for an empty file.
pub(super) fn row_span(field: &'static str, pairs: &SpanPairs) -> Result<Span, WireError> {
    match pairs.as_slice() {
        &[start, 0] => Ok(Span::new(start, start)),
        _ => span(field, pairs),
    }
}

pub(super) fn span_of(field: &'static str, start: u64, bytes: u64) -> Result<Span, WireError> {
    let end = start.checked_add(bytes).filter(|end| *end > start);
    end.map(|end| Span::new(start, end)).ok_or(WireError::Contradiction { field })
}

pub(super) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or(WireError::Missing { field })
}

pub(super) fn within(field: &'static str, value: usize, limit: usize) -> Result<(), WireError> {
    if value > limit {
        return Err(WireError::Limit { field, value: value as u64, limit: limit as u64 });
    }
    Ok(())
}

pub(super) fn below(field: &'static str, value: u32, limit: usize) -> Result<u32, WireError> {
    within(field, value as usize, limit - 1)?;
    Ok(value)
}

pub(super) fn node_index(value: u32) -> Result<u32, WireError> {
    below("the index of a node", value, NODES_MAX)
}

pub(super) fn text_within(
    field: &'static str,
    text: String,
    limit: usize,
) -> Result<String, WireError> {
    within(field, text.len(), limit)?;
    Ok(text)
}

pub(super) fn text(field: &'static str, text: String) -> Result<String, WireError> {
    text_within(field, text, TEXT_BYTES_MAX)
}

pub(super) fn name(field: &'static str, name: String) -> Result<String, WireError> {
    text_within(field, name, NAME_BYTES_MAX)
}

/// Decodes an id or a key of fixed size.
pub(super) fn key<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::Size { what: field, found: bytes.len(), wanted: N })
}

/// Decodes a list of messages, all of them valid.
pub(super) fn list<M: WireMessage>(
    field: &'static str,
    protos: Vec<M::Proto>,
    limit: usize,
) -> Result<Vec<M>, WireError> {
    within(field, protos.len(), limit)?;
    protos.into_iter().map(M::from_proto).collect()
}

/// Joins texts without spaces into one text.
pub(super) fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(" ")
}

/// Joins texts as lines of one text, each with its end. A line break within a text becomes a space;
/// texts that are too long are cut.
pub(super) fn lines<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    texts.map(|text| shortened(text).replace('\n', " ") + "\n").collect()
}

/// Packs addresses: for each the size of the IP address in bytes, the address, and the port.
pub(super) fn packed(addresses: &[SocketAddr]) -> Vec<u8> {
    let mut packed = Vec::new();
    for address in addresses {
        match address.ip() {
            IpAddr::V4(ip) => {
                packed.push(4);
                packed.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                packed.push(16);
                packed.extend(ip.octets());
            }
        }
        packed.extend(address.port().to_be_bytes());
    }
    packed
}

/// Unpacks the addresses of a peer's rails.
pub(super) fn addresses(
    field: &'static str,
    mut packed: &[u8],
) -> Result<Vec<SocketAddr>, WireError> {
    let mut addresses = Vec::new();
    while let Some((length, rest)) = packed.split_first() {
        within(field, addresses.len() + 1, RAILS_MAX)?;
        let (ip, rest): (IpAddr, &[u8]) = match length {
            4 => rest.split_first_chunk::<4>().map(|(ip, rest)| ((*ip).into(), rest)),
            16 => rest.split_first_chunk::<16>().map(|(ip, rest)| ((*ip).into(), rest)),
            _ => None,
        }
        .ok_or(WireError::Contradiction { field })?;
        let (port, rest) =
            rest.split_first_chunk::<2>().ok_or(WireError::Contradiction { field })?;
        addresses.push(SocketAddr::new(ip, u16::from_be_bytes(*port)));
        packed = rest;
    }
    Ok(addresses)
}

impl WireMessage for Error {
    type Proto = proto::Failure;

    /// Cuts the text and the missing ranges to their limits, since both may be long: a shortened
    /// error is better than none.
    fn to_proto(&self) -> proto::Failure {
        let (told, rest) = self.missing.split_at(self.missing.len().min(SPANS_MAX));
        let mut message = shortened(&self.message);
        if !rest.is_empty() {
            let bytes: u128 = rest.iter().map(|span| u128::from(span.bytes())).sum();
            let more = format!(
                "; {} more ranges of {bytes} bytes are missing than are listed",
                rest.len()
            );
            message.truncate(message.floor_char_boundary(TEXT_BYTES_MAX - more.len()));
            message += &more;
        }
        proto::Failure {
            code: self.code.number().into(),
            message,
            remedy: self.remedy.as_deref().map(shortened),
            missing: pairs(told),
            stats: None,
        }
    }

    fn from_proto(proto: proto::Failure) -> Result<Error, WireError> {
        Ok(Error {
            code: Code::of(proto.code),
            message: text("the message of an error", proto.message)?,
            remedy: proto
                .remedy
                .map(|remedy| text("the remedy of an error", remedy))
                .transpose()?,
            missing: spans("the missing ranges of an error", &proto.missing)?,
        })
    }
}

/// Returns the beginning of a text, within its limit.
pub(super) fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}
