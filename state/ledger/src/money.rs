//! Money: integer minor units of one currency. Parsed once at the edge, never a float.

use std::fmt;

use rust_decimal::Decimal;

use crate::Currency;

/// A text that matches the contract's grammar of amounts: `(0|[1-9][0-9]*)(\.[0-9]+)?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmountText<'a>(&'a str);

impl<'a> AmountText<'a> {
    /// The proof, or `None` where the text is not an amount. The length is not bounded here.
    pub fn parse(text: &'a str) -> Option<AmountText<'a>> {
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (text, None),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = digits(whole) && (whole == "0" || !whole.starts_with('0'));
        (canonical && fraction.is_none_or(digits)).then_some(AmountText(text))
    }

    /// The text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether it is nothing, in any currency.
    pub fn is_zero(self) -> bool {
        self.0.bytes().all(|byte| byte == b'0' || byte == b'.')
    }
}

/// Why an amount is not money in its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// More decimals than the currency has, even where they are zeros.
    #[error("more decimals than the currency has")]
    TooManyDecimals,
    /// More than [`Money::AMOUNT_MAX_MINOR`].
    #[error("more than 10^15 minor units")]
    TooLarge,
}

/// Why two sums cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// They are of different currencies.
    #[error("different currencies")]
    CurrencyMismatch,
    /// The result does not fit.
    #[error("the sum does not fit")]
    Overflow,
    /// A fraction of a minor unit.
    #[error("a fraction of a minor unit")]
    Fraction,
}

/// A sum of money, which may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    minor: i128,
    currency: Currency,
}

impl Money {
    /// The largest amount of one command, in minor units.
    pub const AMOUNT_MAX_MINOR: i128 = 1_000_000_000_000_000;
    /// The number of digits of [`Money::AMOUNT_MAX_MINOR`].
    pub const AMOUNT_DIGITS_MAX: usize = 16;

    /// An amount in major units, for example `12.50`, with at most the currency's decimals.
    pub fn parse(text: AmountText<'_>, currency: Currency) -> Result<Money, AmountError> {
        let (whole, fraction) = text.as_str().split_once('.').unwrap_or((text.as_str(), ""));
        let exponent = usize::from(currency.exponent());
        let Some(missing) = exponent.checked_sub(fraction.len()) else { return Err(AmountError::TooManyDecimals) };
        let digits = whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', missing));
        let mut minor: i128 = 0;
        for digit in digits {
            let next = minor.checked_mul(10).and_then(|minor| minor.checked_add(i128::from(digit.wrapping_sub(b'0'))));
            minor = next.filter(|minor| *minor <= Money::AMOUNT_MAX_MINOR).ok_or(AmountError::TooLarge)?;
        }
        Ok(Money { minor, currency })
    }

    /// A sum of `minor` minor units.
    pub fn from_minor(minor: i128, currency: Currency) -> Money {
        Money { minor, currency }
    }

    /// Nothing.
    pub fn zero(currency: Currency) -> Money {
        Money { minor: 0, currency }
    }

    /// The minor units.
    pub fn minor(self) -> i128 {
        self.minor
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.minor == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.minor < 0
    }

    /// The sum of two.
    pub fn checked_add(self, other: Money) -> Result<Money, MoneyError> {
        self.same_currency(other)?;
        let minor = self.minor.checked_add(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Money { minor, currency: self.currency })
    }

    /// The difference of two.
    pub fn checked_sub(self, other: Money) -> Result<Money, MoneyError> {
        self.same_currency(other)?;
        let minor = self.minor.checked_sub(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Money { minor, currency: self.currency })
    }

    /// The same sum the other way.
    pub fn negated(self) -> Result<Money, MoneyError> {
        let minor = self.minor.checked_neg().ok_or(MoneyError::Overflow)?;
        Ok(Money { minor, currency: self.currency })
    }

    /// In major units as a decimal, where it fits into one.
    pub fn to_decimal(self) -> Option<Decimal> {
        Decimal::try_from_i128_with_scale(self.minor, u32::from(self.currency.exponent())).ok()
    }

    /// From major units; what is finer than the currency's exponent is refused, never rounded.
    pub fn from_decimal(decimal: Decimal, currency: Currency) -> Result<Money, MoneyError> {
        let exact = decimal.normalize();
        let missing = u32::from(currency.exponent()).checked_sub(exact.scale()).ok_or(MoneyError::Fraction)?;
        let factor = 10_i128.checked_pow(missing).ok_or(MoneyError::Overflow)?;
        let minor = exact.mantissa().checked_mul(factor).ok_or(MoneyError::Overflow)?;
        Ok(Money { minor, currency })
    }

    /// In major units with exactly the exponent's digits, for example `12.50`, `5` or `-0.050`; without the currency.
    pub fn text(self) -> MoneyText {
        let mut text = MoneyText { bytes: [b'0'; MoneyText::LENGTH_MAX], start: MoneyText::LENGTH_MAX };
        let exponent = self.currency.exponent();
        let mut rest = self.minor.unsigned_abs();
        let mut digits: u8 = 0;
        while digits <= exponent || rest != 0 {
            if digits == exponent && exponent != 0 {
                text.push_front(b'.');
            }
            let digit;
            (rest, digit) = last_digit(rest);
            text.push_front(digit);
            digits = digits.saturating_add(1);
        }
        if self.is_negative() {
            text.push_front(b'-');
        }
        text
    }

    fn same_currency(self, other: Money) -> Result<(), MoneyError> {
        (self.currency == other.currency).then_some(()).ok_or(MoneyError::CurrencyMismatch)
    }
}

/// In major units with exactly the exponent's digits, for example `12.50`, `5` or `-0.050`; without the currency.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

/// A sum of money as text, without an allocation: events print four of them each.
#[derive(Debug, Clone, Copy)]
pub struct MoneyText {
    bytes: [u8; MoneyText::LENGTH_MAX],
    start: usize,
}

impl MoneyText {
    /// The 39 digits of the largest `i128`, a point and a sign.
    const LENGTH_MAX: usize = 41;

    /// The text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(self.start..).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn push_front(&mut self, byte: u8) {
        self.start = self.start.saturating_sub(1);
        if let Some(place) = self.bytes.get_mut(self.start) {
            *place = byte;
        }
    }
}

/// A number without its last digit, and that digit in ASCII. Numbers of 64 bits, which nearly all are, divide much faster.
fn last_digit(number: u128) -> (u128, u8) {
    let (rest, digit) = match u64::try_from(number) {
        Ok(small) => (u128::from(small.checked_div(10).unwrap_or_default()), small.checked_rem(10).unwrap_or_default() as u8),
        Err(_) => (number.checked_div(10).unwrap_or_default(), number.checked_rem(10).unwrap_or_default() as u8),
    };
    (rest, digit.saturating_add(b'0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::parse(code).expect("a row names a known currency")
    }

    #[test]
    fn amounts_match_the_grammar_or_are_refused() {
        for text in ["0", "1", "10", "12.50", "0.1", "0.000", "999999999999999999999999999999999999999999"] {
            assert!(AmountText::parse(text).is_some(), "{text}");
        }
        for text in
            ["", "01", "00", "+1", "-1", " 1", "1 ", "1.", ".5", "1e5", "1,5", "1.2.3", "NaN", "Infinity", "１", "0x1", "1_000"]
        {
            assert!(AmountText::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn amounts_become_minor_units() {
        let rows: [(&str, &str, Result<i128, AmountError>); 13] = [
            ("12.50", "AED", Ok(1250)),
            ("12.5", "AED", Ok(1250)),
            ("12", "AED", Ok(1200)),
            ("0.01", "AED", Ok(1)),
            ("0", "AED", Ok(0)),
            ("1.001", "AED", Err(AmountError::TooManyDecimals)),
            ("1.000", "AED", Err(AmountError::TooManyDecimals)),
            ("5", "VND", Ok(5)),
            ("1.5", "VND", Err(AmountError::TooManyDecimals)),
            ("1.234", "KWD", Ok(1234)),
            ("1000000000000000", "VND", Ok(1_000_000_000_000_000)),
            ("1000000000000001", "VND", Err(AmountError::TooLarge)),
            ("170141183460469231731687303715884105728", "VND", Err(AmountError::TooLarge)),
        ];
        for (text, code, expected) in rows {
            let parsed = Money::parse(AmountText::parse(text).expect("a row is an amount"), currency(code));
            assert_eq!(parsed.map(Money::minor), expected, "{text} {code}");
        }
    }

    #[test]
    fn sums_print_with_exactly_the_exponents_digits() {
        for (minor, code, expected) in [
            (1250, "AED", "12.50"),
            (-5, "AED", "-0.05"),
            (5, "VND", "5"),
            (1234, "KWD", "1.234"),
            (-1, "KWD", "-0.001"),
            (0, "BHD", "0.000"),
            (i128::MIN, "VND", "-170141183460469231731687303715884105728"),
        ] {
            assert_eq!(Money::from_minor(minor, currency(code)).to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(minor in 0..=Money::AMOUNT_MAX_MINOR) {
            for currency in Currency::all() {
                let money = Money::from_minor(minor, currency);
                let text = money.to_string();
                let amount = AmountText::parse(&text);
                prop_assert!(amount.is_some());
                prop_assert_eq!(amount.map(|amount| Money::parse(amount, currency)), Some(Ok(money)));
                prop_assert_eq!(money.to_decimal().map(|decimal| Money::from_decimal(decimal, currency)), Some(Ok(money)));
            }
        }

        #[test]
        fn no_text_panics(text in prop_oneof!["\\PC*", "[-+]?[0-9]{0,40}[.,eE]?[-+]?[0-9]{0,40}", "[1-9][0-9]{0,30}(\\.[0-9]{1,6})?"]) {
            for currency in Currency::all() {
                if let Some(amount) = AmountText::parse(&text) {
                    let _ = Money::parse(amount, currency);
                }
            }
        }

        #[test]
        fn sums_never_wrap(a in any::<i128>(), b in any::<i128>()) {
            let (x, y) = (Money::from_minor(a, currency("AED")), Money::from_minor(b, currency("AED")));
            prop_assert_eq!(x.checked_add(y).ok().map(Money::minor), a.checked_add(b));
            prop_assert_eq!(x.checked_sub(y).ok().map(Money::minor), a.checked_sub(b));
            let _ = (x.to_string(), x.to_decimal(), x.negated());
        }
    }

    #[test]
    fn currencies_do_not_mix() {
        let (a, b) = (Money::from_minor(1, currency("AED")), Money::from_minor(1, currency("KWD")));
        assert_eq!(a.checked_add(b), Err(MoneyError::CurrencyMismatch));
        assert_eq!(a.checked_sub(b), Err(MoneyError::CurrencyMismatch));
    }
}
