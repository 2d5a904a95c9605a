//! Hosts in the one spelling in which the index files them: the name without its port and the root's dot, in lower case.
//! Every spelling that [`super::super::host`] takes for the same as another has the same name.

use std::borrow::Cow;

/// The name of a host; `None` for hosts that can be read in more ways (addresses in brackets, user information).
pub(in crate::policy) fn name(host: &str) -> Option<Cow<'_, str>> {
    let found = host.bytes().fold(0, |found, byte| found | CLASSES[usize::from(byte)]);
    let name = match found & (COLON | ODD) {
        0 => host,
        COLON => {
            let (name, port) = host.split_once(':')?;
            port.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)?
        }
        _ => return None,
    };
    let name = name.trim_end_matches('.');
    Some(if found & UPPER == 0 {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.to_ascii_lowercase())
    })
}

const UPPER: u8 = 1;
const COLON: u8 = 2;
const ODD: u8 = 4;

/// What a byte of a host means.
const CLASSES: [u8; 256] = {
    let mut classes = [ODD; 256];
    let mut byte = 0u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'A'..=b'Z' => UPPER,
            b':' => COLON,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => 0,
            _ => ODD,
        };
        byte += 1;
    }
    classes
};

/// What the name of each host begins with that begins so.
pub(super) fn start(text: &str) -> Option<String> {
    let name = text.split(':').next().unwrap_or_default();
    Some(name.trim_end_matches('.').to_ascii_lowercase()).filter(|name| !name.is_empty())
}

/// What the name of each host ends with that ends so. Digits may be a port's.
pub(super) fn end(text: &str) -> Option<String> {
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if is_port(name) || !is_port(port) {
        return None;
    }
    Some(name.trim_end_matches('.').to_ascii_lowercase()).filter(|name| !name.is_empty())
}
