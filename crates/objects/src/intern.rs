//! Names that come from outside but are used as if they had been written in the code: those of custom resources.
//!
//! Each distinct text is kept once, for the life of the process. What is interned are names of kinds, which are few
//! and come back again and again; never what objects contain.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::kind::Names;

/// The text, for as long as the process lives.
pub fn text(text: &str) -> &'static str {
    static KEPT: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept.get(text) {
        return known;
    }
    let new: &'static str = Box::leak(text.to_owned().into_boxed_str());
    kept.insert(new);
    new
}

/// The texts, in their order.
pub fn texts(list: &[String]) -> &'static [&'static str] {
    static KEPT: LazyLock<Mutex<HashSet<&'static [&'static str]>>> = LazyLock::new(Mutex::default);
    let list: Vec<&'static str> = list.iter().map(|one| text(one)).collect();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept.get(list.as_slice()) {
        return known;
    }
    let new: &'static [&'static str] = Box::leak(list.into_boxed_slice());
    kept.insert(new);
    new
}

/// The names of a kind.
pub fn names(names: Names) -> &'static Names {
    static KEPT: LazyLock<Mutex<HashSet<&'static Names>>> = LazyLock::new(Mutex::default);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept.get(&names) {
        return known;
    }
    let new: &'static Names = Box::leak(Box::new(names));
    kept.insert(new);
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_kept_once() {
        let spelled: String = ["wid", "gets"].concat();
        let (first, second) = (text("widgets"), text(&spelled));
        assert!(std::ptr::eq(first, second));
        let list = ["a".to_owned(), "b".to_owned()];
        assert!(std::ptr::eq(texts(&list), texts(&list)));
        assert_eq!(texts(&list), ["a", "b"]);
    }
}
