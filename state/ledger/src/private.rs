//! Text about a person: a holder, an account at a bank, a reference, a note. It is stored and told where the contract says so, and
//! is never printed by accident: its `Debug` hides it and it has no `Display`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A text that `{:?}` does not show, in whatever it is contained.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Private(Arc<str>);

impl Deref for Private {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Private {
    fn from(text: &str) -> Private {
        Private(text.into())
    }
}

impl From<Arc<str>> for Private {
    fn from(text: Arc<str>) -> Private {
        Private(text)
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_on_purpose_and_never_shown() {
        let holder = Private::from("Canary Holder");
        assert_eq!(&*holder, "Canary Holder");
        assert_eq!(format!("{holder:?} {:?}", Some((1, holder.clone()))), "*** Some((1, ***))");
    }
}
