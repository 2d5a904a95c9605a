//! What nodes call a key to each other: 64 bits of SHA-256. Nodes share no secret seed, so nothing weaker would do: with a
//! hash that can be inverted a client could choose a header that empties another client's bucket.

use std::hash::{Hash, Hasher};

use aws_lc_rs::digest::{Context, SHA256};

/// Longer keys are hashed in pieces, at the price of an allocation.
const SHORT: usize = 512;

/// The digest of what a key's parts write; never 0, which stands for no key.
pub fn digest(key: &impl Hash) -> u64 {
    let mut bytes = Bytes { short: [0; SHORT], length: 0, long: None };
    key.hash(&mut bytes);
    bytes.finish().max(1)
}

struct Bytes {
    short: [u8; SHORT],
    length: usize,
    long: Option<Context>,
}

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(long) = &mut self.long {
            return long.update(bytes);
        }
        let end = self.length.saturating_add(bytes.len());
        if let Some(room) = self.short.get_mut(self.length..end) {
            room.copy_from_slice(bytes);
            self.length = end;
            return;
        }
        let mut long = Context::new(&SHA256);
        long.update(self.short.get(..self.length).unwrap_or_default());
        long.update(bytes);
        self.long = Some(long);
    }

    fn finish(&self) -> u64 {
        let digest = match &self.long {
            Some(long) => long.clone().finish(),
            None => {
                let bytes = self.short.get(..self.length).unwrap_or_default();
                aws_lc_rs::digest::digest(&SHA256, bytes)
            }
        };
        let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_calls_a_key_the_same_and_no_two_keys_alike() {
        // SHA-256 of "abc" and the byte that ends a text.
        assert_eq!(digest(&"abc"), digest(&String::from("abc")));
        assert_eq!(format!("{:016x}", digest(&"abc").swap_bytes()), ABC);
        let texts =
            ["", "a", "b", &"x".repeat(SHORT), &"x".repeat(SHORT + 1), &"x".repeat(3 * SHORT)];
        let mut digests: Vec<u64> = texts.iter().map(digest).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), texts.len());
    }

    /// `printf 'abc\xff' | sha256sum | cut -c 1-16`
    const ABC: &str = "8e3b08dc1236880b";

    #[test]
    fn a_long_key_is_one_key() {
        let whole = "y".repeat(4 * SHORT);
        assert_eq!(digest(&whole), digest(&whole.clone()));
        assert_ne!(digest(&(whole.clone(), "a")), digest(&(whole, "b")));
    }
}
