//! Currencies of ISO 4217 that FinFlow can hold: those with 0, 2 or 3 decimals.

use std::fmt;

/// A currency. Funds codes, metals and test codes have no usable exponent and are unknown here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency {
    iso: iso_currency::Currency,
    exponent: u8,
}

impl Currency {
    /// The most decimals that a known currency has.
    pub const EXPONENT_MAX: usize = 3;

    /// The currency with this code, in upper case, for example `AED`.
    pub fn parse(code: &str) -> Option<Currency> {
        iso_currency::Currency::from_code(code).filter(|iso| iso.code() == code).and_then(Currency::known)
    }

    /// The currency with this ISO 4217 number, for example 784.
    pub fn from_numeric(numeric: u16) -> Option<Currency> {
        iso_currency::Currency::from_numeric(numeric).and_then(Currency::known)
    }

    /// Every currency, by number.
    pub fn all() -> impl Iterator<Item = Currency> {
        (0..1000).filter_map(Currency::from_numeric)
    }

    /// The three-letter code.
    pub fn code(self) -> &'static str {
        self.iso.code()
    }

    /// The three-digit number.
    pub fn numeric(self) -> u16 {
        self.iso.numeric()
    }

    /// The number of decimals: 0, 2 or 3.
    pub fn exponent(self) -> u8 {
        self.exponent
    }

    fn known(iso: iso_currency::Currency) -> Option<Currency> {
        match iso.exponent()? {
            exponent @ (0 | 2 | 3) => Some(Currency { iso, exponent: exponent as u8 }),
            _ => None,
        }
    }
}

impl Ord for Currency {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.numeric().cmp(&other.numeric())
    }
}

impl PartialOrd for Currency {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_those_of_iso_4217() {
        for (code, exponent) in [
            ("VND", Some(0)),
            ("JPY", Some(0)),
            ("AED", Some(2)),
            ("SGD", Some(2)),
            ("IDR", Some(2)),
            ("KWD", Some(3)),
            ("BHD", Some(3)),
            ("OMR", Some(3)),
            ("JOD", Some(3)),
            ("IQD", Some(3)),
            ("XXX", None),
            ("XAU", None),
            ("XTS", None),
            ("CLF", None),
            ("aed", None),
            ("", None),
            ("AEDD", None),
        ] {
            assert_eq!(Currency::parse(code).map(Currency::exponent), exponent, "{code}");
        }
    }

    #[test]
    fn codes_and_numbers_name_the_same_currencies() {
        assert!(150 < Currency::all().count());
        for currency in Currency::all() {
            assert_eq!(Currency::parse(currency.code()), Some(currency));
            assert_eq!(Currency::from_numeric(currency.numeric()), Some(currency));
        }
    }
}
