//! The layers: files, variables and settings become entries of one kind, which are checked layer by layer and then put together.
//! The defaults decide which keys exist and, for variables and settings, whether a text is a number, a truth value or a string.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

use crate::{Config, DEFAULTS, Place, Problems, kafka};

/// What the variables that belong to FinFlow begin with.
const VARIABLE_PREFIX: &str = "FINFLOW__";
/// The name of the built-in defaults in a problem.
const DEFAULTS_NAME: &str = "default.toml";
/// Most letters by which a key may differ from what was written to be suggested for it.
const SUGGESTION_EDITS_MAX: usize = 3;

/// A known key set by a layer.
struct Entry {
    key: String,
    value: Value,
    place: Place,
}

pub(crate) fn load(
    files: &[(String, String)],
    variables: impl IntoIterator<Item = (String, String)>,
    settings: &[String],
    rules: impl FnOnce(&Config) -> Vec<(String, String)>,
) -> Result<Config, Problems> {
    let mut loader = Loader::new()?;
    for (name, text) in files {
        loader.layer(|keys, found| file(name, text, keys, found));
    }
    let variables = variables.into_iter().collect::<BTreeMap<_, _>>();
    loader.layer(|keys, found| variables.iter().filter_map(|(name, text)| variable(name, text, keys, found)).collect());
    for text in settings {
        loader.layer(|keys, found| setting(text, keys, found).into_iter().collect());
    }
    loader.finish(rules)
}

/// The layers put together so far.
struct Loader {
    keys: Keys,
    defaults: Table,
    merged: Table,
    /// Where keys were set, the last one last.
    places: Vec<(String, Place)>,
    /// Keys of which a layer was refused.
    refused: BTreeSet<String>,
    problems: Problems,
}

impl Loader {
    fn new() -> Result<Loader, Problems> {
        let defaults: Table = DEFAULTS.parse().map_err(|error| syntax(DEFAULTS_NAME, DEFAULTS, &error))?;
        let mut keys = Keys(BTreeMap::new());
        keys.collect("", &defaults);
        Ok(Loader {
            keys,
            merged: defaults.clone(),
            defaults,
            places: Vec::new(),
            refused: BTreeSet::new(),
            problems: Problems::default(),
        })
    }

    /// Adds the entries that `read` gives, but for those that are wrong.
    fn layer(&mut self, read: impl FnOnce(&Keys, &mut Problems) -> Vec<Entry>) {
        let mut found = Problems::default();
        let mut read = read(&self.keys, &mut found);
        read.sort_by(|one, other| one.place.cmp(&other.place));
        let mut entries: Vec<Entry> = Vec::new();
        for entry in read {
            // One name that is written in two ways.
            if entries.iter().any(|earlier| earlier.key == entry.key) {
                found.add(entry.place, format!("`{}` is set twice", kafka::quoted(&entry.key)));
            } else {
                entries.push(entry);
            }
        }
        // Serde stops at the first wrong value: leave it out and ask again until none is left.
        while let Err((key, message)) = self.try_on(&entries) {
            let Some(index) = entries.iter().position(|entry| entry.key == key) else {
                found.add(Place::in_file(DEFAULTS_NAME, DEFAULTS, 0), format!("`{key}` {message}"));
                break;
            };
            found.add(entries.swap_remove(index).place, format!("`{}` {message}", kafka::quoted(&key)));
            self.refused.insert(key);
        }
        for entry in entries {
            put(&mut self.merged, &entry.key, entry.value);
            self.places.push((entry.key, entry.place));
        }
        self.problems.add_layer(found);
    }

    /// The key and the problem of the first of `entries` that is wrong by itself.
    fn try_on(&self, entries: &[Entry]) -> Result<Config, (String, String)> {
        let mut table = self.defaults.clone();
        for entry in entries {
            put(&mut table, &entry.key, entry.value.clone());
        }
        typed(table)
    }

    fn finish(mut self, rules: impl FnOnce(&Config) -> Vec<(String, String)>) -> Result<Config, Problems> {
        let config = match typed(std::mem::take(&mut self.merged)) {
            Ok(config) => config,
            Err((key, message)) => {
                self.problems.add(Place::in_file(DEFAULTS_NAME, DEFAULTS, 0), format!("`{key}` {message}"));
                return Err(self.problems);
            }
        };
        for (key, measure, message) in config.contradictions() {
            // Where one of the two was refused, its default stands in for it: what that contradicts is no problem of its own.
            if self.refused.contains(key) || self.refused.contains(measure) {
                continue;
            }
            let place = self.place_of(|set| set == key || set == measure);
            self.problems.add(place, format!("`{key}` {message}"));
        }
        for (key, message) in rules(&config) {
            let place = self.place_of(|set| set == key);
            self.problems.add(place, format!("`{}` {message}", kafka::quoted(&key)));
        }
        if self.problems.is_empty() { Ok(config) } else { Err(self.problems) }
    }

    /// Where one of these keys was set last.
    fn place_of(&self, is_one: impl Fn(&str) -> bool) -> Place {
        let set_last = self.places.iter().rev().find(|(set, _)| is_one(set));
        set_last.map_or_else(|| Place::in_file(DEFAULTS_NAME, DEFAULTS, 0), |(_, place)| place.clone())
    }
}

fn typed(table: Table) -> Result<Config, (String, String)> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        (key, error.into_inner().message().to_owned())
    })
}

/// Sets `key`, one of the known ones, so that its sections are there.
fn put(table: &mut Table, key: &str, value: Value) {
    if kafka::put(table, key, &value) {
        return;
    }
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            if let Some(Value::Table(section)) = table.get_mut(section) {
                put(section, rest, value);
            }
        }
    }
}

fn syntax(name: &str, text: &str, error: &toml::de::Error) -> Problems {
    let mut found = Problems::default();
    let offset = error.span().map_or(0, |span| span.start);
    found.add(Place::in_file(name, text, offset), error.message().to_owned());
    found
}

fn file(name: &str, text: &str, keys: &Keys, found: &mut Problems) -> Vec<Entry> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        found.add_layer(syntax(name, text, error));
    }
    // What is left of a file that is no TOML could be read as something that its author never wrote.
    if !errors.is_empty() {
        return Vec::new();
    }
    let mut reader = FileReader { name, text, keys, entries: Vec::new(), found };
    reader.table("", table.get_ref());
    reader.entries
}

struct FileReader<'a> {
    name: &'a str,
    text: &'a str,
    keys: &'a Keys,
    entries: Vec<Entry>,
    found: &'a mut Problems,
}

impl FileReader<'_> {
    fn table(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = joined(section, name.get_ref());
            match value.get_ref() {
                _ if self.keys.0.contains_key(&key) => self.entry(key, value),
                DeValue::Table(inner) if self.keys.is_section(&key) || !inner.is_empty() => self.table(&key, inner),
                _ if self.keys.is_section(&key) => {
                    self.found.add(self.place(value.span().start), format!("`{key}` must be a section, `[{key}]`"));
                }
                _ if kafka::is_property(&key) => self.entry(key, value),
                _ => self.found.add(self.place(name.span().start), self.keys.unknown(&key, kafka::quoted)),
            }
        }
    }

    fn entry(&mut self, key: String, value: &Spanned<DeValue<'_>>) {
        let place = self.place(value.span().start);
        // The parser keeps numbers as they are written; only those beyond 64 bits, 1e400 among them, are no value.
        match Value::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(value) => self.entries.push(Entry { key, value, place }),
            Err(_) => self.found.add(place, format!("`{}` is too large", kafka::quoted(&key))),
        }
    }

    fn place(&self, offset: usize) -> Place {
        Place::in_file(self.name, self.text, offset)
    }
}

/// `section.name`, where a name that is no bare key is quoted: `"a.b"` is not `a.b`, but where the names are the client library's.
fn joined(section: &str, name: &str) -> String {
    if kafka::holds_names(section) {
        return format!("{section}.{name}");
    }
    let bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let name = if bare { name.to_owned() } else { format!("{name:?}") };
    if section.is_empty() { name } else { format!("{section}.{name}") }
}

fn variable(name: &str, text: &str, keys: &Keys, found: &mut Problems) -> Option<Entry> {
    let written = name.strip_prefix(VARIABLE_PREFIX)?;
    let place = Place::Variable(name.to_owned());
    match kafka::of_variable(written).or_else(|| keys.0.keys().find(|key| variable_name(key) == name).cloned()) {
        Some(key) => keys.entry(&key, text, place, found),
        None => {
            found.add(place, keys.unknown(&written.replace("__", ".").to_lowercase(), variable_name));
            None
        }
    }
}

fn variable_name(key: &str) -> String {
    let name = kafka::variable(key).unwrap_or_else(|| key.replace('.', "__").to_uppercase());
    format!("{VARIABLE_PREFIX}{name}")
}

fn setting(text: &str, keys: &Keys, found: &mut Problems) -> Option<Entry> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let (key, place) = (key.trim(), Place::Setting(key.trim().to_owned()));
    if !text.contains('=') {
        found.add(place, "must have the form section.key=value".to_owned());
        return None;
    }
    let key = kafka::unquoted(key);
    if !keys.0.contains_key(&key) && !kafka::is_property(&key) {
        found.add(place, keys.unknown(&key, kafka::quoted));
        return None;
    }
    keys.entry(&key, value, place, found)
}

/// All keys there are, with their defaults.
struct Keys(BTreeMap<String, Value>);

impl Keys {
    fn collect(&mut self, section: &str, table: &Table) {
        for (name, value) in table {
            let key = joined(section, name);
            match value {
                Value::Table(inner) => self.collect(&key, inner),
                _ => {
                    self.0.insert(key, value.clone());
                }
            }
        }
    }

    fn is_section(&self, key: &str) -> bool {
        kafka::is_section(key) || self.0.keys().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The entry that sets `key` to `text`, read as what the default is. Text of another kind stays text, for the key to refuse.
    fn entry(&self, key: &str, text: &str, place: Place, found: &mut Problems) -> Option<Entry> {
        if text.is_empty() {
            found.add(place, format!("`{}` must not be empty", kafka::quoted(key)));
            return None;
        }
        if text.contains(char::is_control) {
            found.add(place, format!("`{}` must be one line without control characters", kafka::quoted(key)));
            return None;
        }
        let value = match self.0.get(key) {
            Some(Value::Integer(_)) => text.parse().ok().map(Value::Integer),
            Some(Value::Boolean(_)) => text.parse().ok().map(Value::Boolean),
            _ => None,
        };
        Some(Entry { key: key.to_owned(), value: value.unwrap_or_else(|| Value::String(text.to_owned())), place })
    }

    /// The problem of a key that does not exist, with the nearest one that does as `spelled` in that layer.
    fn unknown(&self, key: &str, spelled: impl Fn(&str) -> String) -> String {
        match nearest(key, self.0.keys().map(String::as_str)) {
            Some(known) => format!("unknown key `{key}`; did you mean `{}`?", spelled(known)),
            None => format!("unknown key `{key}`"),
        }
    }
}

/// The one of `known` that `written` could have been meant to be.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = known.into_iter().map(|known| (distance(written, known), known)).min();
    nearest.filter(|(edits, _)| *edits <= SUGGESTION_EDITS_MAX).map(|(_, known)| known)
}

/// How far `written` is from `known` in letters (Levenshtein). The right name without its section, or in another, counts as one.
fn distance(written: &str, known: &str) -> usize {
    fn last(key: &str) -> &str {
        key.rsplit('.').next().unwrap_or(key)
    }
    let known_letters = known.chars().collect::<Vec<_>>();
    let mut row = (0..=known_letters.len()).collect::<Vec<_>>();
    for (index, letter) in written.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, known_letter) in known_letters.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *known_letter);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    let letters = row[known_letters.len()];
    if last(written) == last(known) { letters.min(1) } else { letters }
}
