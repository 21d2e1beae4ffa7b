//! The terms on which a flow is protected: what each end demands, and what both agree on.

use super::WireError;
use crate::core::error::{Code, Error};
use crate::core::options::{Cipher, TransferOptions, WireLevel};

impl WireLevel {
    /// Returns the level of a flow for which nobody asks for one. It `is_inside` the machine if
    /// both of its addresses are loopback ones.
    pub(crate) fn usual(is_inside: bool) -> WireLevel {
        if is_inside { WireLevel::Clear } else { WireLevel::Sealed }
    }

    /// Returns the level with this number on the wire.
    pub(crate) fn of(number: u32) -> Result<WireLevel, WireError> {
        match number {
            1 => Ok(WireLevel::Clear),
            2 => Ok(WireLevel::Signed),
            3 => Ok(WireLevel::Sealed),
            _ => Err(WireError::Unknown { field: "the protection", value: number.into() }),
        }
    }
}

impl Cipher {
    /// Returns the cipher with this number on the wire.
    pub(crate) fn of(number: u32) -> Result<Cipher, WireError> {
        match number {
            1 => Ok(Cipher::Aes256Gcm),
            2 => Ok(Cipher::ChaCha20Poly1305),
            _ => Err(WireError::Unknown { field: "the cipher", value: number.into() }),
        }
    }
}

impl WireAgreement {
    /// Returns the agreement as a number: the level, and the cipher in the bits from 8 on.
    pub(crate) fn number(self) -> u32 {
        self.level as u32 | (self.cipher as u32) << 8
    }

    /// Returns the agreement with this number.
    pub(crate) fn of(number: u32) -> Result<WireAgreement, WireError> {
        let (level, cipher) = (WireLevel::of(number & 0xff)?, Cipher::of(number >> 8)?);
        Ok(WireAgreement { level, cipher })
    }
}

/// Demands of one end of a flow. Each end tells the other its own in the handshake, and the
/// agreement is the same function of both: nobody's word can lower what this end demands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FlowTerms {
    /// The least protection.
    pub(crate) level: WireLevel,
    /// The ciphers that it can use.
    pub(crate) ciphers: CipherSet,
}

/// Agreement of both ends of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WireAgreement {
    pub(crate) level: WireLevel,
    pub(crate) cipher: Cipher,
}

/// A set of ciphers, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CipherSet(u32);

/// Demands of a node on the flows of every transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WireRules {
    /// The least protection.
    pub(crate) least: WireLevel,
    /// The ciphers that its processor is fast at.
    pub(crate) ciphers: CipherSet,
}

/// Demands of a node on the flows of one transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WirePolicy {
    asked: Option<WireLevel>,
    rules: WireRules,
}

impl WireRules {
    /// Returns the demands on the flows of a transfer with these options.
    ///
    /// # Errors
    /// `Code::Refused` if the transfer asks for less than this node takes, or for a cipher that it
    /// lacks.
    pub(crate) fn policy(self, options: &TransferOptions) -> Result<WirePolicy, Error> {
        let WireRules { least, ciphers } = self;
        if let Some(asked) = options.wire.filter(|&asked| asked < least) {
            let (asked, least) = (asked.name(), least.name());
            let what = format!("--wire {asked} is below what this node takes");
            return Err(Error::new(Code::Refused, what).remedy(format!(
                "--wire {least} or higher, or another --wire-min where the node starts"
            )));
        }
        if let Some(cipher) = options.cipher.filter(|&cipher| !ciphers.has(cipher)) {
            let what = format!("this machine's processor lacks instructions for {}", cipher.name());
            return Err(Error::new(Code::Refused, what).remedy("leave --cipher out"));
        }
        let rules = WireRules { least, ciphers: ciphers.only(options.cipher) };
        Ok(WirePolicy { asked: options.wire, rules })
    }
}

impl WireRules {
    /// Returns the highest demands, for a transfer that is refused: until it has ended, flows of it
    /// may arrive.
    pub(crate) fn strictest(self) -> WirePolicy {
        WirePolicy { asked: Some(WireLevel::Sealed), rules: self }
    }
}

impl WirePolicy {
    /// Returns the demands on a flow, which `is_inside` this machine or not.
    pub(crate) fn terms(self, is_inside: bool) -> FlowTerms {
        let WireRules { least, ciphers } = self.rules;
        let level = self.asked.unwrap_or(WireLevel::usual(is_inside)).max(least);
        FlowTerms { level, ciphers }
    }
}

impl FlowTerms {
    /// Returns what two ends agree on: the higher level, and the first cipher that both have.
    ///
    /// # Errors
    /// `Code::Refused` if they have no cipher in common.
    pub(crate) fn agree(self, other: FlowTerms) -> Result<WireAgreement, Error> {
        let both = CipherSet(self.ciphers.0 & other.ciphers.0);
        let cipher = PREFERRED.into_iter().find(|&cipher| both.has(cipher));
        let level = self.level.max(other.level);
        cipher.map(|cipher| WireAgreement { level, cipher }).ok_or_else(|| {
            Error::new(Code::Refused, "the two ends of a flow have no cipher in common")
                .remedy("leave --cipher out: each pair of nodes then takes the fastest it has")
        })
    }
}

impl CipherSet {
    /// Returns the set of `ciphers`.
    pub(crate) fn of(ciphers: impl IntoIterator<Item = Cipher>) -> CipherSet {
        CipherSet(ciphers.into_iter().fold(0, |bits, cipher| bits | bit(cipher)))
    }

    /// Returns the set with these bits. Bits that mean nothing here are ciphers of newer versions.
    pub(crate) fn from_bits(bits: u32) -> CipherSet {
        CipherSet(bits)
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    pub(crate) fn has(self, cipher: Cipher) -> bool {
        self.0 & bit(cipher) != 0
    }

    /// Returns the set without all ciphers but `only`, where one is asked for.
    pub(crate) fn only(self, only: Option<Cipher>) -> CipherSet {
        only.map_or(self, |only| CipherSet(self.0 & bit(only)))
    }
}

fn bit(cipher: Cipher) -> u32 {
    1 << (cipher as u32)
}

/// Ciphers, the fastest first: a machine is only said to have AES where its processor has
/// instructions for it.
const PREFERRED: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Cipher; 2] = PREFERRED;
    const LEVELS: [WireLevel; 3] = [WireLevel::Clear, WireLevel::Signed, WireLevel::Sealed];

    fn terms(level: WireLevel) -> FlowTerms {
        FlowTerms { level, ciphers: CipherSet::of(ALL) }
    }

    fn rules(least: WireLevel) -> WireRules {
        WireRules { least, ciphers: CipherSet::of(ALL) }
    }

    #[test]
    fn only_loopback_is_clear_by_itself() {
        let level = |least, is_inside| {
            let policy = rules(least).policy(&TransferOptions::default());
            policy.map(|policy| policy.terms(is_inside).level).ok()
        };
        assert_eq!(level(WireLevel::Clear, true), Some(WireLevel::Clear));
        assert_eq!(level(WireLevel::Clear, false), Some(WireLevel::Sealed));
        assert_eq!(level(WireLevel::Signed, true), Some(WireLevel::Signed));
    }

    #[test]
    fn what_is_asked_for_is_taken_or_refused_but_never_raised() {
        for asked in LEVELS {
            for least in LEVELS {
                let options = TransferOptions { wire: Some(asked), ..TransferOptions::default() };
                for is_inside in [true, false] {
                    let policy = rules(least).policy(&options);
                    let level = policy.map(|policy| policy.terms(is_inside).level);
                    let level = level.map_err(|error| error.code);
                    let expected = if asked < least { Err(Code::Refused) } else { Ok(asked) };
                    assert_eq!(level, expected);
                }
            }
        }
    }

    #[test]
    fn a_cipher_that_the_machine_lacks_is_refused() {
        let chacha = CipherSet::of([Cipher::ChaCha20Poly1305]);
        let rules = WireRules { least: WireLevel::Clear, ciphers: chacha };
        let asks = |cipher| TransferOptions { cipher, ..TransferOptions::default() };
        let refused = rules.policy(&asks(Some(Cipher::Aes256Gcm)));
        assert_eq!(refused.map_err(|error| error.code), Err(Code::Refused));
        assert!(rules.policy(&asks(Some(Cipher::ChaCha20Poly1305))).is_ok());
        assert!(rules.policy(&asks(None)).is_ok());
    }

    #[test]
    fn the_end_that_demands_more_has_its_way() {
        for one in LEVELS {
            for other in LEVELS {
                let agreed = terms(one).agree(terms(other)).map(|it| it.level);
                assert_eq!(agreed.ok(), Some(one.max(other)));
            }
        }
    }

    #[test]
    fn both_ends_take_the_same_cipher_or_none() {
        let sets = [vec![], vec![ALL[0]], vec![ALL[1]], ALL.to_vec()];
        for one in &sets {
            for other in &sets {
                let of = |set: &[Cipher]| FlowTerms {
                    level: WireLevel::Sealed,
                    ciphers: CipherSet::of(set.iter().copied()),
                };
                let agreed = of(one).agree(of(other)).map(|it| it.cipher).ok();
                let expected = ALL.into_iter().find(|it| one.contains(it) && other.contains(it));
                assert_eq!(agreed, expected);
                assert_eq!(of(other).agree(of(one)).map(|it| it.cipher).ok(), expected);
            }
        }
        assert!(!CipherSet::of(ALL).only(Some(ALL[1])).has(ALL[0]));
    }
}
