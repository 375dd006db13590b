//! Writing JSON text by hand: events are written a hundred thousand times a second, always with the same fields.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a JSON string.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut clean = 0;
    for (place, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..=0x1f => 0,
            _ => continue,
        };
        out.extend_from_slice(text.as_bytes().get(clean..place).unwrap_or_default());
        clean = place.saturating_add(1);
        if short == 0 {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(text.as_bytes().get(clean..).unwrap_or_default());
    out.push(b'"');
}

/// Appends `,"name":` - names need no escaping.
pub(super) fn name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends `,"name":"text"`.
pub(super) fn field(out: &mut Vec<u8>, field: &str, text: &str) {
    name(out, field);
    string(out, text);
}

/// Appends `,"name":"text"` where the text's type proves that nothing in it needs escaping: ids, words, times, amounts.
pub(super) fn plain(out: &mut Vec<u8>, field: &str, text: &str) {
    name(out, field);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Appends `,"name":"text"` if there is a text.
pub(super) fn optional(out: &mut Vec<u8>, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        field(out, name, text);
    }
}

/// Appends `,"name":"text"`, or `,"name":null`.
pub(super) fn nullable(out: &mut Vec<u8>, field: &str, text: Option<&str>) {
    name(out, field);
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_parse_back(text in any::<String>()) {
            let mut out = Vec::new();
            super::string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).ok(), Some(text));
        }
    }
}
