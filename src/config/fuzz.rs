//! What fuzzers try on a file of settings: an administrator writes it, but templates make it from what others say.

use super::{Overrides, Settings};

/// The text of a file.
pub fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lines = text.lines().count().max(1);
    match Settings::parse(text, &Overrides::default()) {
        Ok(settings) => assert!(settings.layer4.threads > 0 && settings.layer7.threads > 0),
        Err(error) => {
            assert!(!error.complaints.is_empty());
            let places = error.complaints.iter().filter_map(|complaint| complaint.line);
            places.for_each(|line| assert!((1..=lines + 1).contains(&line), "{error}"));
        }
    }
}
