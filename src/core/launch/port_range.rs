//! Port range: the TCP ports that a node may listen at.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The TCP ports that a node may listen at: one, or a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Returns true if a port is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Returns all of them, ascending.
    #[must_use]
    pub fn all(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl FromStr for PortRange {
    type Err = String;

    /// Parses `6000` or `6000-6009`.
    ///
    /// # Errors
    /// The expected form, as text.
    fn from_str(text: &str) -> Result<PortRange, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| is_plain && *port > 0)
        };
        let ports = port(first).zip(port(last)).filter(|(first, last)| first <= last);
        let (first, last) = ports.ok_or("a port, or ports LO-HI, from 1 to 65535")?;
        Ok(PortRange { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_was_printed() {
        for text in ["1", "65535", "6000-6009"] {
            assert_eq!(text.parse().map(|range: PortRange| range.to_string()), Ok(text.into()));
        }
        assert_eq!("7-7".parse::<PortRange>(), "7".parse());
        assert_eq!("5-7".parse().map(|range: PortRange| range.all().count()), Ok(3));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in
            ["", "0", "0-0", "0-5", "9-3", "70000", "1-70000", "text", "1-", "-1", "1-2-3", "+1-2"]
        {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
