//! `[kafka]`: the properties of the client library, each under its own name, of which FinFlow knows the first only. Those of the client
//! that trims stand in a section of their own, `[kafka.trim]`; no property of the library begins like it.
//!
//! A name has dots in it. Within this crate its key is `kafka.security.protocol`, whichever way a layer writes it: quoted in a file or a
//! setting, bare, or in a variable with `_` for the dots.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::{Table, Value};

use crate::values;

/// What the keys of the section begin with.
const SECTION: &str = "kafka.";
/// The section of the client that trims, within it.
const TRIM: &str = "trim";
const TRIM_SECTION: &str = "kafka.trim.";
/// The one property that FinFlow needs.
const SERVERS: &str = "bootstrap.servers";

/// `[kafka]`
#[derive(Clone, PartialEq, Eq)]
pub struct Kafka {
    /// `bootstrap.servers`: the brokers to ask first, as `host:port,...`.
    pub brokers: String,
    /// The other properties of the client library, by name.
    pub properties: BTreeMap<String, String>,
    /// `[kafka.trim]`: those of the client that trims, over the others.
    pub trim: BTreeMap<String, String>,
}

impl Kafka {
    /// All properties but the brokers: the key, as [`crate::Config::load_with`] takes it from a rule, the name and the value.
    pub fn each(&self) -> impl Iterator<Item = (String, &str, &str)> {
        let own = self.properties.iter().map(|(name, value)| (SECTION, name, value));
        let trims = self.trim.iter().map(|(name, value)| (TRIM_SECTION, name, value));
        own.chain(trims).map(|(section, name, value)| (format!("{section}{name}"), name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Kafka {
    /// Without the properties, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

/// The brokers, checked.
#[derive(Deserialize)]
#[serde(transparent)]
struct Brokers(#[serde(deserialize_with = "values::brokers")] String);

/// The value of a property, checked as far as it can be without the library.
#[derive(Deserialize)]
#[serde(transparent)]
struct Property(#[serde(deserialize_with = "values::property")] String);

impl<'de> Deserialize<'de> for Kafka {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Kafka, D::Error> {
        struct Section;
        impl<'de> Visitor<'de> for Section {
            type Value = Kafka;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a section")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kafka, A::Error> {
                let (mut brokers, mut properties, mut trim) = (None, BTreeMap::new(), BTreeMap::new());
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        SERVERS => brokers = Some(map.next_value::<Brokers>()?.0),
                        TRIM => {
                            let all = map.next_value::<BTreeMap<String, Property>>()?;
                            trim = all.into_iter().map(|(name, value)| (name, value.0)).collect();
                        }
                        _ => {
                            properties.insert(name, map.next_value::<Property>()?.0);
                        }
                    }
                }
                let brokers = brokers.ok_or_else(|| A::Error::missing_field(SERVERS))?;
                Ok(Kafka { brokers, properties, trim })
            }
        }
        source.deserialize_map(Section)
    }
}

/// Properties without the values that are secret.
struct Shown<'a>(&'a BTreeMap<String, String>);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        sink.collect_map(self.0.iter().map(|(name, value)| (name, shown(name, value))))
    }
}

fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    if values::is_secret(name) { values::HIDDEN } else { value }
}

impl Serialize for Kafka {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        let mut map = sink.serialize_map(None)?;
        map.serialize_entry(SERVERS, &self.brokers)?;
        for (name, value) in &self.properties {
            map.serialize_entry(name, shown(name, value))?;
        }
        map.serialize_entry(TRIM, &Shown(&self.trim))?;
        map.end()
    }
}

/// The name of the property that a key sets, and whether it is the trimmer's; `None` where it is no key of a property.
fn property(key: &str) -> Option<(bool, &str)> {
    let name = key.strip_prefix(SECTION)?;
    let (is_trims, name) = match name.strip_prefix("trim.") {
        Some(name) => (true, name),
        None => (false, name),
    };
    let is_name = name != TRIM
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && name.split('.').all(|part| !part.is_empty());
    is_name.then_some((is_trims, name))
}

/// Whether a key sets a property of the client library, whatever its name.
pub(crate) fn is_property(key: &str) -> bool {
    property(key).is_some()
}

/// Whether the keys of a section are names with dots, which are not quoted in ours.
pub(crate) fn holds_names(section: &str) -> bool {
    format!("{section}.").starts_with(SECTION)
}

/// Whether that is a section, even while nothing is in it.
pub(crate) fn is_section(key: &str) -> bool {
    key.strip_prefix(SECTION) == Some(TRIM)
}

/// Sets a property where `key` is one, and says whether it was.
pub(crate) fn put(table: &mut Table, key: &str, value: &Value) -> bool {
    let Some((is_trims, name)) = property(key) else { return false };
    let mut section = table.get_mut("kafka").and_then(Value::as_table_mut);
    if is_trims {
        section = section.and_then(|kafka| kafka.entry(TRIM).or_insert_with(|| Value::Table(Table::new())).as_table_mut());
    }
    section.is_some_and(|section| {
        section.insert(name.to_owned(), value.clone());
        true
    })
}

/// The key that a setting means: quotes around the name are the same as none.
pub(crate) fn unquoted(written: &str) -> String {
    let Some(rest) = written.strip_prefix(SECTION) else { return written.to_owned() };
    let (section, name) = rest.strip_prefix("trim.").map_or((SECTION, rest), |name| (TRIM_SECTION, name));
    let inner = |quote: char| name.strip_prefix(quote).and_then(|name| name.strip_suffix(quote));
    format!("{section}{}", inner('"').or_else(|| inner('\'')).unwrap_or(name))
}

/// A key as it is written in a file.
pub(crate) fn quoted(key: &str) -> String {
    match property(key) {
        Some((is_trims, name)) if name.contains('.') => {
            format!("{SECTION}{}\"{name}\"", if is_trims { "trim." } else { "" })
        }
        _ => key.to_owned(),
    }
}

/// What the variables of the section begin with, behind the prefix of all.
const VARIABLES: &str = "KAFKA__";

/// The key of a property that a variable means, without the prefix that all have: `_` stands for the dots, of which names have no other.
pub(crate) fn of_variable(written: &str) -> Option<String> {
    let name = written.strip_prefix(VARIABLES)?;
    let is_written = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    let key = format!("{SECTION}{}", name.replace("__", "_").replace('_', ".").to_lowercase());
    (is_written && is_property(&key)).then_some(key)
}

/// The variable of a property, without the prefix that all have.
pub(crate) fn variable(key: &str) -> Option<String> {
    let (is_trims, name) = property(key)?;
    let section = if is_trims { "TRIM__" } else { "" };
    Some(format!("{VARIABLES}{section}{}", name.replace('.', "_").to_uppercase()))
}

/// Whether a section `[kafka]` of a file holds a secret, however it writes the names.
pub(crate) fn holds_secret(section: &Table) -> bool {
    fn within(begin: &str, section: &Table) -> bool {
        section.iter().any(|(name, value)| match value {
            Value::Table(inner) => within(&format!("{begin}{name}."), inner),
            value => values::is_secret(&format!("{begin}{name}")) && value.as_str() != Some(""),
        })
    }
    within("", section)
}
