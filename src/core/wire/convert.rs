//! Conversion between typed messages and their wire format, one to one.
//!
//! Encoding cannot fail. Decoding checks every number and text against its limit, and compares
//! parts that must agree. Invalid input is refused with the name of its field.

mod fields;
mod load;
mod master;
mod node;
mod survey;

use std::net::SocketAddr;

use super::control::{
    FlowCall, FlowHello, FlowReply, MasterQuery, NodeAdvert, QueryAnswer, RailAdvert, WireMessage,
};
use super::limits::{RAILS_MAX, STATUS_BYTES_MAX};
use super::terms::{CipherSet, FlowTerms};
use super::{WireError, proto};
use crate::core::options::WireLevel;
use crate::core::units::BitRate;
use crate::core::wire::convert::fields::{key, list, name, text_within};

impl WireMessage for NodeAdvert {
    type Proto = proto::Advert;

    fn to_proto(&self) -> proto::Advert {
        proto::Advert {
            software: self.software.clone(),
            rails: self.rails.iter().map(WireMessage::to_proto).collect(),
            cores: self.cores,
            boot_id: self.boot_id.clone(),
            incarnation: self.incarnation,
        }
    }

    fn from_proto(proto: proto::Advert) -> Result<NodeAdvert, WireError> {
        Ok(NodeAdvert {
            software: name("the software's name", proto.software)?,
            rails: list("the rails of a node", proto.rails, RAILS_MAX)?,
            cores: proto.cores,
            boot_id: name("the boot id", proto.boot_id)?,
            incarnation: proto.incarnation,
        })
    }
}

impl WireMessage for RailAdvert {
    type Proto = proto::Rail;

    fn to_proto(&self) -> proto::Rail {
        proto::Rail {
            nic: self.nic.clone(),
            address: self.address.to_string(),
            line_bits_per_second: self.line.map(|rate| rate.0),
            mtu: self.mtu,
            numa: self.numa,
        }
    }

    fn from_proto(proto: proto::Rail) -> Result<RailAdvert, WireError> {
        let contradiction = WireError::Contradiction { field: "the address of a rail" };
        let address: SocketAddr = proto.address.parse().map_err(|_| contradiction)?;
        Ok(RailAdvert {
            nic: name("the name of a NIC", proto.nic)?,
            address,
            line: proto.line_bits_per_second.map(BitRate),
            mtu: proto.mtu,
            numa: proto.numa,
        })
    }
}

impl WireMessage for FlowHello {
    type Proto = proto::FlowHello;

    fn to_proto(&self) -> proto::FlowHello {
        proto::FlowHello {
            transfer: self.transfer.to_vec(),
            attempt: self.attempt.to_vec(),
            from_node: self.from_node,
            to_node: self.to_node,
            rail: self.rail,
            to_rail: self.to_rail,
            weight_bytes: self.weight_bytes,
            pace_bytes_per_second: self.pace_bytes_per_second,
            silent_flows: self.silent_flows,
            further: self.further,
            wire: self.terms.level as u32,
            ciphers: self.terms.ciphers.bits(),
            call: self.call,
        }
    }

    fn from_proto(proto: proto::FlowHello) -> Result<FlowHello, WireError> {
        let rail = fields::below("the rail of a flow", proto.rail, RAILS_MAX)?;
        Ok(FlowHello {
            transfer: key("the id of a transfer", &proto.transfer)?,
            attempt: key("the id of an attempt", &proto.attempt)?,
            from_node: fields::node_index(proto.from_node)?,
            to_node: fields::node_index(proto.to_node)?,
            rail,
            to_rail: fields::below("the rail that a flow is for", proto.to_rail, RAILS_MAX)?,
            weight_bytes: proto.weight_bytes,
            pace_bytes_per_second: proto.pace_bytes_per_second,
            silent_flows: proto.silent_flows,
            further: proto.further,
            terms: terms(proto.wire, proto.ciphers)?,
            call: proto.call,
        })
    }
}

impl WireMessage for FlowCall {
    type Proto = proto::Call;

    fn to_proto(&self) -> proto::Call {
        proto::Call {
            peer: self.peer,
            pair: self.pair,
            further: self.further,
            receiver_rail: self.receiver_rail,
            sender_rail: self.sender_rail,
            weight_bytes: self.weight_bytes,
            pace_bytes_per_second: self.pace_bytes_per_second,
        }
    }

    fn from_proto(proto: proto::Call) -> Result<FlowCall, WireError> {
        let rail = |rail| fields::below("the rail of a call", rail, RAILS_MAX);
        Ok(FlowCall {
            peer: fields::node_index(proto.peer)?,
            pair: fields::below("the rail pair of a call", proto.pair, RAILS_MAX)?,
            further: proto.further,
            receiver_rail: rail(proto.receiver_rail)?,
            sender_rail: rail(proto.sender_rail)?,
            weight_bytes: proto.weight_bytes,
            pace_bytes_per_second: proto.pace_bytes_per_second,
        })
    }
}

impl WireMessage for FlowReply {
    type Proto = proto::FlowReply;

    fn to_proto(&self) -> proto::FlowReply {
        proto::FlowReply { wire: self.terms.level as u32, ciphers: self.terms.ciphers.bits() }
    }

    fn from_proto(proto: proto::FlowReply) -> Result<FlowReply, WireError> {
        Ok(FlowReply { terms: terms(proto.wire, proto.ciphers)? })
    }
}

fn terms(level: u32, ciphers: u32) -> Result<FlowTerms, WireError> {
    Ok(FlowTerms { level: WireLevel::of(level)?, ciphers: CipherSet::from_bits(ciphers) })
}

impl WireMessage for MasterQuery {
    type Proto = proto::Query;

    fn to_proto(&self) -> proto::Query {
        let kind = match self {
            MasterQuery::Status => 1,
            MasterQuery::Cancel => 2,
        };
        proto::Query { kind }
    }

    fn from_proto(proto: proto::Query) -> Result<MasterQuery, WireError> {
        match proto.kind {
            1 => Ok(MasterQuery::Status),
            2 => Ok(MasterQuery::Cancel),
            other => Err(WireError::Unknown { field: "the kind of a query", value: other.into() }),
        }
    }
}

impl WireMessage for QueryAnswer {
    type Proto = proto::Answer;

    fn to_proto(&self) -> proto::Answer {
        proto::Answer { json: self.json.clone() }
    }

    fn from_proto(proto: proto::Answer) -> Result<QueryAnswer, WireError> {
        Ok(QueryAnswer {
            json: text_within("the state of a transfer", proto.json, STATUS_BYTES_MAX)?,
        })
    }
}
