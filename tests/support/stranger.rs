//! A stranger on the way between two nodes: a router that ends every connection to a data port
//! itself and carries its bytes on. It has no key. What it knows of frames is docs/PROTOCOL.md.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use netlab::address;
use nix::sys::socket::{getsockopt, sockopt};

use super::lab::Lab;

/// Bytes of every whole piece. Whoever listens learns it from the sizes of packets.
pub(crate) const PIECE_BYTES: usize = 64 << 10;
/// What a stranger writes into files.
pub(crate) const WRITING: &[u8] = b"written by a stranger, ";

/// What the stranger does, once on each connection, before it carries on what is left of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attack {
    /// Nothing.
    Pass,
    /// Nothing; it keeps the answers, which are whole pieces.
    Listen,
    /// Changes a byte of a payload.
    Payload,
    /// Changes a byte of a header, at this place.
    Header(usize),
    /// Changes a byte of a request, at this place.
    Request(usize),
    /// Writes into a payload, and computes both sums of the frame anew.
    BothSums,
    /// Has two answers change places.
    Swap,
    /// Gives the answer that the same request of an earlier transfer had.
    EarlierAnswer,
    /// Ends the stream within a piece.
    Truncate,
    /// Asks for a piece itself.
    OwnRequest,
    /// Sends each direction's frames back to where they came from.
    Reflect,
    /// Repeats what the receiver says on a connection of its own.
    Again,
    /// Changes a byte in every thousand, for ever.
    Everywhere,
    /// Changes a byte of the handshake.
    Handshake(HandshakeMessage, usize),
}

/// A message of the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HandshakeMessage {
    First,
    Second,
    Confirmation,
}

/// What the stranger saw and did.
#[derive(Default)]
pub(crate) struct StrangerNotes {
    /// Connections that it carried.
    pub(crate) connections: u32,
    /// Attacks that it carried out.
    pub(crate) attacks: u32,
    /// Handshakes of receivers, each with the address of the sender: all that it takes to repeat
    /// them.
    pub(crate) handshakes: Vec<(SocketAddr, Vec<u8>)>,
    /// Bytes that a sender gave the stranger itself, handshakes aside.
    pub(crate) given: Vec<u8>,
    /// Answers of the last connection that it only listened to.
    pub(crate) answers: Vec<WireFrame>,
}

/// The stranger at work.
pub(crate) struct Stranger(Arc<StrangerState>);

struct StrangerState {
    /// The attack, and on how many connections it is still to be carried out.
    plan: Mutex<(Attack, u32)>,
    notes: Mutex<StrangerNotes>,
}

/// A frame as it is on the wire.
#[derive(Clone)]
pub(crate) struct WireFrame {
    header: [u8; HEADER_BYTES],
    payload: Vec<u8>,
}

/// A connection that the stranger carries on.
struct CarriedConnection {
    receiver: TcpStream,
    sender: TcpStream,
    sender_address: SocketAddr,
    attack: Attack,
}

impl Stranger {
    /// Makes `node` a router between each two of `nodes`, and a stranger on it.
    pub(crate) fn between(lab: &Lab, node: u32, nodes: &[u32]) -> Stranger {
        let via = address(node, 0);
        for from in nodes {
            for to in nodes.iter().filter(|to| *to != from) {
                let route = format!("ip route add {}/32 via {via} dev eth0", address(*to, 0));
                lab.network.shell(*from, &route).unwrap();
            }
        }
        let forwards = "sysctl -q net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
                        net.ipv4.conf.eth0.send_redirects=0";
        lab.network.shell(node, forwards).unwrap();
        lab.network.nft(node, REDIRECT).unwrap();
        let plan = Mutex::new((Attack::Pass, 0));
        let state = Arc::new(StrangerState { plan, notes: Mutex::default() });
        let listening = Arc::clone(&state);
        // Threads belong to the namespace of the one that began them.
        let listen = move || {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
            thread::spawn(move || {
                for receiver in listener.incoming().map_while(Result::ok) {
                    let state = Arc::clone(&listening);
                    thread::spawn(move || state.carry(receiver));
                }
            });
        };
        lab.network.inside(node, listen).unwrap();
        Stranger(state)
    }

    /// Carries `attack` out on the next `times` connections.
    pub(crate) fn attacks(&self, attack: Attack, times: u32) {
        *self.0.plan.lock().unwrap() = (attack, times);
        let mut notes = self.notes();
        (notes.connections, notes.attacks, notes.given) = (0, 0, Vec::new());
    }

    pub(crate) fn notes(&self) -> MutexGuard<'_, StrangerNotes> {
        self.0.notes.lock().unwrap()
    }
}

impl StrangerState {
    fn carry(&self, receiver: TcpStream) {
        let to = getsockopt(&receiver, sockopt::OriginalDst).unwrap();
        let sender_address =
            SocketAddr::from((to.sin_addr.s_addr.to_ne_bytes(), u16::from_be(to.sin_port)));
        // A node that does not listen any more is what the receiver would have met itself.
        let Ok(sender) = TcpStream::connect(sender_address) else { return };
        let attack = self.next_attack();
        let carried = CarriedConnection { receiver, sender, sender_address, attack };
        // A connection that one end closes is at its end here, too.
        let _ = self.shake(&carried).and_then(|()| {
            thread::scope(|scope| {
                let requests = scope.spawn(|| carried.ended(self.requests(&carried)));
                let answers = carried.ended(self.answers(&carried));
                requests.join().unwrap().and(answers)
            })
        });
        let _ = carried.ended(Ok(()));
    }

    fn next_attack(&self) -> Attack {
        let mut plan = self.plan.lock().unwrap();
        self.notes.lock().unwrap().connections += 1;
        let (attack, times) = *plan;
        plan.1 = times.saturating_sub(1);
        if times > 0 { attack } else { Attack::Pass }
    }

    fn done(&self) {
        self.notes.lock().unwrap().attacks += 1;
    }

    /// Carries the handshake.
    fn shake(&self, carried: &CarriedConnection) -> Result<()> {
        let CarriedConnection { receiver, sender, .. } = carried;
        let change = |part: HandshakeMessage, message: &mut [u8]| match carried.attack {
            Attack::Handshake(of, at) if of == part => {
                message[at] ^= 1;
                self.done();
            }
            _ => {}
        };
        let mut first = read_message(receiver, PREAMBLE_BYTES, 12)?;
        let mut said = first.clone();
        change(HandshakeMessage::First, &mut first);
        (&*sender).write_all(&first)?;
        let mut second = read_message(sender, REPLY_BYTES, 10)?;
        change(HandshakeMessage::Second, &mut second);
        (&*receiver).write_all(&second)?;
        let mut confirmation = [0; TAG_BYTES];
        (&*receiver).read_exact(&mut confirmation)?;
        said.extend(confirmation);
        change(HandshakeMessage::Confirmation, &mut confirmation);
        (&*sender).write_all(&confirmation)?;
        self.notes.lock().unwrap().handshakes.push((carried.sender_address, said));
        Ok(())
    }

    fn requests(&self, carried: &CarriedConnection) -> Result<()> {
        let CarriedConnection { receiver, sender, attack, .. } = carried;
        let mut first = [0; HEADER_BYTES];
        (&*receiver).read_exact(&mut first)?;
        match *attack {
            Attack::Request(at) => {
                first[at] ^= 1;
                self.done();
            }
            Attack::OwnRequest => {
                let mut own = first;
                own[REQUEST_AT..REQUEST_AT + 4].copy_from_slice(&OWN_REQUEST.to_le_bytes());
                sum_header(&mut own);
                self.done();
                (&*sender).write_all(&own)?;
            }
            Attack::Reflect => {
                self.done();
                (&*receiver).write_all(&first)?;
            }
            Attack::Again => {
                let mut said = self.last_handshake();
                said.extend(first);
                self.ask_again(carried.sender_address, &said)?;
                self.done();
            }
            _ => {}
        }
        (&*sender).write_all(&first)?;
        copy(receiver, sender, |_| {})
    }

    fn answers(&self, carried: &CarriedConnection) -> Result<()> {
        let CarriedConnection { receiver, sender, attack, .. } = carried;
        if *attack == Attack::Everywhere {
            let mut carried_bytes = 0;
            return copy(sender, receiver, |bytes| {
                for byte in bytes {
                    carried_bytes += 1;
                    *byte ^= u8::from(carried_bytes % 1000 == 50);
                }
                self.done();
            });
        }
        if matches!(attack, Attack::Pass | Attack::Request(_) | Attack::Handshake(..)) {
            return copy(sender, receiver, |_| {});
        }
        let mut first = WireFrame::read(sender)?;
        match *attack {
            Attack::Listen => {
                first.write(receiver)?;
                return self.listen(carried, first);
            }
            Attack::Payload => first.payload[100] ^= 1,
            Attack::Header(at) => first.header[at] ^= 1,
            Attack::BothSums => first.forge(),
            Attack::Swap => {
                let second = WireFrame::read(sender)?;
                self.done();
                second.write(receiver)?;
            }
            Attack::EarlierAnswer => first = self.earlier(&first),
            Attack::Truncate => {
                first.payload.truncate(1000);
                self.done();
                return first.write(receiver);
            }
            Attack::OwnRequest => return self.take_own(carried, first),
            Attack::Reflect => (&*sender).write_all(&first.header)?,
            Attack::Pass
            | Attack::Everywhere
            | Attack::Request(_)
            | Attack::Again
            | Attack::Handshake(..) => {
                first.write(receiver)?;
                return copy(sender, receiver, |_| {});
            }
        }
        self.done();
        first.write(receiver)?;
        copy(sender, receiver, |_| {})
    }

    /// Keeps the answers of a connection, as long as they are whole pieces.
    fn listen(&self, carried: &CarriedConnection, first: WireFrame) -> Result<()> {
        let mut answers = vec![first];
        let ended = loop {
            match WireFrame::read(&carried.sender) {
                Ok(frame) => {
                    frame.write(&carried.receiver)?;
                    answers.push(frame);
                }
                Err(error) => break Err(error),
            }
        };
        self.notes.lock().unwrap().answers = answers;
        ended
    }

    /// The answer that a request had earlier. Where numbers are in clear it is the same request's;
    /// where not, the first one.
    fn earlier(&self, answer: &WireFrame) -> WireFrame {
        let notes = self.notes.lock().unwrap();
        let is_same = |it: &&WireFrame| {
            it.is_legible() && it.header[REQUEST_AT..][..4] == answer.header[REQUEST_AT..][..4]
        };
        let same = notes.answers.iter().find(is_same).or(notes.answers.first());
        same.expect("an earlier transfer was heard").clone()
    }

    /// Takes the answer to the stranger's own request out of the stream.
    fn take_own(&self, carried: &CarriedConnection, first: WireFrame) -> Result<()> {
        let mut frame = first;
        loop {
            if frame.header[REQUEST_AT..][..4] == OWN_REQUEST.to_le_bytes() {
                self.notes.lock().unwrap().given.extend(&frame.payload);
                return copy(&carried.sender, &carried.receiver, |_| {});
            }
            frame.write(&carried.receiver)?;
            frame = WireFrame::read(&carried.sender)?;
        }
    }

    fn last_handshake(&self) -> Vec<u8> {
        self.notes.lock().unwrap().handshakes.last().unwrap().1.clone()
    }

    /// Says on a connection of its own what a receiver has said.
    fn ask_again(&self, sender: SocketAddr, said: &[u8]) -> Result<()> {
        let heard = heard_by(sender, said)?;
        let second = REPLY_BYTES + usize::from(u16::from_le_bytes([heard[10], heard[11]]));
        self.notes.lock().unwrap().given.extend(&heard[second..]);
        Ok(())
    }
}

impl CarriedConnection {
    /// Ends both connections with the first direction that does.
    fn ended(&self, result: Result<()>) -> Result<()> {
        for end in [&self.receiver, &self.sender] {
            let _ = end.shutdown(Shutdown::Both);
        }
        result
    }
}

impl WireFrame {
    fn read(mut from: &TcpStream) -> Result<WireFrame> {
        let mut frame = WireFrame { header: [0; HEADER_BYTES], payload: Vec::new() };
        from.read_exact(&mut frame.header)?;
        let bytes = match (frame.is_legible(), frame.header[KIND_AT]) {
            (true, DATA) => u32::from_le_bytes(frame.header[12..16].try_into().unwrap()) as usize,
            (true, _) => 0,
            // It is a piece, unless something was requested again.
            (false, _) => PIECE_BYTES,
        };
        frame.payload.resize(bytes, 0);
        from.read_exact(&mut frame.payload)?;
        Ok(frame)
    }

    fn write(&self, mut to: &TcpStream) -> Result<()> {
        to.write_all(&self.header)?;
        to.write_all(&self.payload)
    }

    fn is_legible(&self) -> bool {
        self.header.starts_with(b"CEPd")
    }

    /// Writes into the payload, and makes both sums right.
    fn forge(&mut self) {
        for (at, byte) in self.payload.iter_mut().enumerate() {
            *byte = WRITING[at % WRITING.len()];
        }
        let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &self.payload);
        self.header[CHECK_AT..CHECK_AT + 8].copy_from_slice(&sum.to_le_bytes());
        sum_header(&mut self.header);
    }
}

/// What a node answers to `said` before it closes the connection.
pub(crate) fn heard_by(node: SocketAddr, said: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(node)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(said)?;
    let mut heard = Vec::new();
    match stream.read_to_end(&mut heard) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error),
        _ => Ok(heard),
    }
}

/// A message of the handshake behind its head, which tells its length.
fn read_message(mut from: &TcpStream, head_bytes: usize, length_at: usize) -> Result<Vec<u8>> {
    let mut message = vec![0; head_bytes];
    from.read_exact(&mut message)?;
    let bytes = u16::from_le_bytes([message[length_at], message[length_at + 1]]);
    message.resize(head_bytes + usize::from(bytes), 0);
    from.read_exact(&mut message[head_bytes..])?;
    Ok(message)
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, mut change: impl FnMut(&mut [u8])) -> Result<()> {
    let mut bytes = vec![0; PIECE_BYTES];
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        change(&mut bytes[..count]);
        to.write_all(&bytes[..count])?;
    }
}

fn sum_header(header: &mut [u8; HEADER_BYTES]) {
    let sum = crc_fast::crc32_iscsi(&header[..HEADER_BYTES - 4]);
    header[HEADER_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
}

const PORT: u16 = 9999;
/// Everything but control connections.
const REDIRECT: &str = "add table ip stranger
add chain ip stranger in { type nat hook prerouting priority -100; }
add rule ip stranger in tcp dport != 7000 redirect to :9999
";

const PREAMBLE_BYTES: usize = 48;
const REPLY_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 96;
const KIND_AT: usize = 5;
const DATA: u8 = 2;
const CHECK_AT: usize = 24;
const REQUEST_AT: usize = 72;
/// A number that no receiver comes to.
const OWN_REQUEST: u32 = 0xdead_beef;
