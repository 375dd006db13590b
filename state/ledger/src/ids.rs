//! Identifiers, parsed once at the edge into types that prove their form.

use std::fmt;
use std::sync::Arc;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $length_max:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier, or `None` where the text does not have its form.
            pub fn parse(text: &str) -> Option<$name> {
                let allowed: fn(u8) -> bool = $allowed;
                let is_valid = !text.is_empty() && text.len() <= $length_max && text.bytes().all(allowed);
                is_valid.then(|| $name(Arc::from(text)))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A wallet, unique over the system: `[A-Za-z0-9_.:-]{1,64}`.
    WalletId,
    64,
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-')
);
text_id!(
    /// The API client that issues commands: `[A-Za-z0-9_-]{1,32}`.
    Tenant,
    32,
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
);
text_id!(
    /// The key under which a tenant repeats a request safely: 1-255 printable ASCII characters.
    IdempotencyKey,
    255,
    |byte| matches!(byte, 0x20..=0x7e)
);

/// Crockford's base 32 in lower case, as ULID uses it.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const PREFIX: &str = "pay_";
const DIGITS: usize = 26;

/// A payment, or any other command: 128 bits that are a pure function of tenant, home wallet and idempotency key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentId([u8; 16]);

impl PaymentId {
    /// The id of these bits.
    pub fn from_bytes(bytes: [u8; 16]) -> PaymentId {
        PaymentId(bytes)
    }

    /// The bits.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id written as `pay_` and 26 characters, or `None`.
    pub fn parse(text: &str) -> Option<PaymentId> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == DIGITS)?;
        let mut bits: u128 = 0;
        for byte in digits.bytes() {
            let digit = ALPHABET.iter().position(|known| *known == byte)? as u128;
            bits = bits.checked_mul(32)?.checked_add(digit)?;
        }
        Some(PaymentId(bits.to_be_bytes()))
    }

    /// 128 bits as 26 characters of Crockford's base 32, most significant first.
    pub fn base32(bytes: &[u8; 16]) -> [u8; DIGITS] {
        let mut bits = u128::from_be_bytes(*bytes);
        let mut text = [b'0'; DIGITS];
        for place in text.iter_mut().rev() {
            let digit = (bits & 31) as usize;
            *place = ALPHABET.get(digit).copied().unwrap_or(b'0');
            bits >>= 5;
        }
        text
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = PaymentId::base32(&self.0);
        f.write_str(PREFIX)?;
        f.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl fmt::Debug for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_ids_or_are_refused() {
        let long = |length: usize| "a".repeat(length);
        for (text, wallet, tenant, key) in [
            ("alice", true, true, true),
            ("w:1.2_3-4", true, false, true),
            ("", false, false, false),
            ("a b", false, false, true),
            ("../etc", false, false, true),
            ("a\nb", false, false, false),
            ("a\0", false, false, false),
            ("ü", false, false, false),
            (&long(32), true, true, true),
            (&long(33), true, false, true),
            (&long(64), true, false, true),
            (&long(65), false, false, true),
            (&long(255), false, false, true),
            (&long(256), false, false, false),
        ] {
            assert_eq!(WalletId::parse(text).is_some(), wallet, "wallet {text:?}");
            assert_eq!(Tenant::parse(text).is_some(), tenant, "tenant {text:?}");
            assert_eq!(IdempotencyKey::parse(text).is_some(), key, "key {text:?}");
        }
    }

    proptest! {
        #[test]
        fn payment_ids_print_and_parse(bytes in any::<[u8; 16]>()) {
            let id = PaymentId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().len(), 30);
            prop_assert_eq!(PaymentId::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = PaymentId::parse(&text);
            let _ = PaymentId::parse(&format!("pay_{text}"));
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in
            ["", "pay_", "pay_8zzzzzzzzzzzzzzzzzzzzzzzzz", "pay_0000000000000000000000000l", "PAY_00000000000000000000000000"]
        {
            assert_eq!(PaymentId::parse(text), None, "{text}");
        }
    }
}
