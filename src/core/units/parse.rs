//! Parsers of sizes, rates and durations.
//!
//! Sizes are binary (`1M` is 1,048,576 bytes), rates are decimal (`10G` is 10¹⁰ bits per second, as
//! for NICs). The error of each function is the expected form, so that callers can report `found
//! "x", expected …`.

use std::time::Duration;

use super::BitRate;

/// Parses a number of bytes or a position: digits, with an optional K, M, G or T for a power of
/// 1024.
///
/// ```
/// use cep_fast::units::parse_size;
/// assert_eq!(parse_size("64K"), Ok(65_536));
/// assert!(parse_size("64KB").is_err());
/// ```
///
/// # Errors
/// The expected form, as text.
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    let (digits, power) = split_suffix(text);
    let number = parse_digits(digits).ok_or(SIZE_EXPECTED)?;
    number.checked_mul(1024u64.pow(power)).ok_or("a number below 2^64")
}

/// Parses a rate in bits per second: a number with an optional fraction, and an optional K, M, G or
/// T for a power of 1000.
///
/// ```
/// use cep_fast::units::{BitRate, parse_rate};
/// assert_eq!(parse_rate("2.5G"), Ok(BitRate(2_500_000_000)));
/// ```
///
/// # Errors
/// The expected form, as text. A rate of 0 is refused.
pub fn parse_rate(text: &str) -> Result<BitRate, &'static str> {
    let (number, power) = split_suffix(text);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.len() > RATE_FRACTION_DIGITS_MAX {
        return Err(RATE_EXPECTED);
    }
    let whole = u128::from(parse_digits(whole).ok_or(RATE_EXPECTED)?);
    let fraction_value = u128::from(parse_digits(fraction).ok_or(RATE_EXPECTED)?);
    let unit = 1000u128.pow(power);
    let scale = fraction.bytes().fold(1, |scale, _| scale * 10);
    let bits = whole * unit + fraction_value * unit / scale;
    match u64::try_from(bits) {
        Ok(0) => Err("a rate above 0"),
        Ok(bits) => Ok(BitRate(bits)),
        Err(_) => Err("a rate below 2^64 bits per second"),
    }
}

/// Formats a rate for [`parse_rate`], without loss: `10G`, `1500M`, `7`.
#[must_use]
pub fn print_rate(rate: BitRate) -> String {
    let units = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "K")];
    match units.into_iter().find(|(unit, _)| rate.0 != 0 && rate.0.is_multiple_of(*unit)) {
        Some((unit, suffix)) => format!("{}{suffix}", rate.0 / unit),
        None => rate.0.to_string(),
    }
}

/// Parses a duration: a whole number of seconds, or one with the unit ms, s, m, h or d.
///
/// ```
/// use std::time::Duration;
/// use cep_fast::units::parse_duration;
/// assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
/// assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
/// ```
///
/// # Errors
/// The expected form, as text. 0 is refused, because a deadline must lie in the future.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(DURATION_EXPECTED),
    };
    let number = parse_digits(digits).ok_or(DURATION_EXPECTED)?;
    match number.checked_mul(unit_ms) {
        Some(0) => Err("a time above 0"),
        Some(ms) if ms <= DURATION_MS_MAX => Ok(Duration::from_millis(ms)),
        _ => Err("a time of at most 3650 days"),
    }
}

/// Returns the text without its suffix, and the power of the suffix.
fn split_suffix(text: &str) -> (&str, u32) {
    let power = match text.as_bytes().last() {
        Some(b'K' | b'k') => 1,
        Some(b'M' | b'm') => 2,
        Some(b'G' | b'g') => 3,
        Some(b'T' | b't') => 4,
        _ => return (text, 0),
    };
    (&text[..text.len() - 1], power)
}

/// Parses digits only: `u64::from_str` would also accept a leading plus.
fn parse_digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

const SIZE_EXPECTED: &str = "a number with an optional suffix K, M, G or T, such as 0, 4096 or 16M";
const RATE_EXPECTED: &str =
    "bits per second with an optional suffix K, M, G or T, such as 10G or 2.5G";
const DURATION_EXPECTED: &str = "a time such as 30s, 5m or 2h; a plain number is seconds";

/// A terabit has twelve decimal places; more are meaningless.
const RATE_FRACTION_DIGITS_MAX: usize = 12;

/// Ten years: far below the overflow of a clock.
const DURATION_MS_MAX: u64 = 3650 * 86_400_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        let good = [
            ("0", 0),
            ("007", 7),
            ("4096", 4096),
            ("1K", 1024),
            ("1m", 1 << 20),
            ("2G", 2 << 30),
            ("3T", 3 << 40),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "K", "-1", "+1", "1.5K", "1KK", "1KiB", "١", "18446744073709551616", "16777216T"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        let good = [
            ("1", 1),
            ("10G", 10_000_000_000),
            ("2.5G", 2_500_000_000),
            ("0.1K", 100),
            ("1T", 1_000_000_000_000),
        ];
        for (text, bits) in good {
            assert_eq!(parse_rate(text), Ok(BitRate(bits)), "{text}");
        }
        for text in [
            "",
            "G",
            "0",
            "0.0G",
            ".5G",
            "5.G",
            "1.2.3",
            "10Gbit",
            "99999999999T",
            "1.0000000000001T",
        ] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        let good = [
            ("250ms", 250),
            ("30", 30_000),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ];
        for (text, ms) in good {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", "s", "0", "0s", "-1s", "1.5h", "5 m", "5w", "3651d", "99999999999999999999"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn printed_rates_parse_to_themselves(bits in 1u64..) {
            prop_assert_eq!(parse_rate(&print_rate(BitRate(bits))), Ok(BitRate(bits)));
        }

        #[test]
        fn nothing_typed_makes_them_panic(
            text in any::<String>(), number in "[0-9.]{0,24}[KMGTms]{0,2}",
        ) {
            for text in [text, number] {
                let _ = (parse_size(&text), parse_rate(&text), parse_duration(&text));
            }
        }
    }
}
