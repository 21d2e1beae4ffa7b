//! First messages of data flows.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FlowHello {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) transfer: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) attempt: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub(crate) from_node: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) to_node: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) rail: u32,
    #[prost(uint64, tag = "6")]
    pub(crate) weight_bytes: u64,
    /// 0 for none.
    #[prost(uint64, tag = "7")]
    pub(crate) pace_bytes_per_second: u64,
    #[prost(uint32, tag = "8")]
    pub(crate) silent_flows: u32,
    /// 0 for the own flow of a rail pair.
    #[prost(uint32, tag = "9")]
    pub(crate) further: u32,
    /// 1 clear, 2 signed, 3 sealed.
    #[prost(uint32, tag = "10")]
    pub(crate) wire: u32,
    /// One bit for each cipher: bit 1 AES-256-GCM, bit 2 ChaCha20-Poly1305.
    #[prost(uint32, tag = "11")]
    pub(crate) ciphers: u32,
    #[prost(uint32, tag = "12")]
    pub(crate) to_rail: u32,
    /// The receiver's rail pair, if a sender dials.
    #[prost(uint32, optional, tag = "13")]
    pub(crate) call: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Call {
    #[prost(uint32, tag = "1")]
    pub(crate) peer: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) pair: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) further: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) receiver_rail: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) sender_rail: u32,
    #[prost(uint64, tag = "6")]
    pub(crate) weight_bytes: u64,
    /// 0 for none.
    #[prost(uint64, tag = "7")]
    pub(crate) pace_bytes_per_second: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FlowReply {
    #[prost(uint32, tag = "1")]
    pub(crate) wire: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) ciphers: u32,
}
