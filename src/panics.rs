//! Panics: where they happened is told, what they say only if it is a literal of the program. A formatted message could quote a
//! record, and records are about people.

use std::any::Any;
use std::panic::PanicHookInfo;

const WITHHELD: &str = "with a formatted message, which is withheld";

/// From here on a panic leaves one line on stderr.
pub(crate) fn hook() {
    std::panic::set_hook(Box::new(|panic| {
        let told = told(panic);
        if tracing::enabled!(tracing::Level::ERROR) {
            tracing::error!("{told}");
        } else {
            eprintln!("finflow: {told}");
        }
    }));
}

fn told(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
    let thread = std::thread::current();
    format!("panic in thread {} at {place}: {}", thread.name().unwrap_or("without a name"), text(panic.payload()))
}

fn text(payload: &(dyn Any + Send)) -> &str {
    payload.downcast_ref::<&str>().copied().unwrap_or(WITHHELD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literals_are_told() {
        let holder = String::from("Canary Holder");
        let of = |panic: Box<dyn Any + Send>| text(&*panic).to_owned();
        let caught = std::panic::catch_unwind(|| panic!("a literal"));
        assert_eq!(caught.map_err(of), Err("a literal".to_owned()));
        let caught = std::panic::catch_unwind(|| panic!("no room for {holder}"));
        assert_eq!(caught.map_err(of), Err(WITHHELD.to_owned()));
        let caught = std::panic::catch_unwind(|| assert_eq!(holder, "somebody"));
        assert_eq!(caught.map_err(of), Err(WITHHELD.to_owned()));
    }
}
