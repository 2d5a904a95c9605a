//! Counts the fields of an HTTP/2 head from its bytes as they pass.
//!
//! HPACK can encode a field in a single byte, and h2 bounds only the text of a head: a field that costs one byte on the
//! wire takes some 180 in memory. So fields are counted here, below h2, and a peer that sends too many in one head is
//! disconnected. Counting needs no table and no decoding: a field is a number and up to two strings (RFC 7541, 6), all
//! of which carry their length.

/// The position in one head. A fragment of it may end anywhere.
#[derive(Default)]
pub(super) struct Fields {
    count: u32,
    step: Step,
    /// Strings of the field that are still to come.
    strings: u8,
}

#[derive(Clone, Copy, Default)]
enum Step {
    /// A field begins.
    #[default]
    Field,
    /// A number continues; its value does not matter.
    Number,
    /// A string begins with its length.
    String,
    /// The length continues: its value so far, and how many bits that is.
    Length(u64, u32),
    /// The string itself: remaining bytes.
    Text(u64),
}

impl Fields {
    /// The fields so far in this head.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn take(&mut self, mut block: &[u8]) {
        while let Some((&byte, rest)) = block.split_first() {
            match self.step {
                Step::Field => self.field(byte),
                Step::Number if byte & 0x80 == 0 => self.next(),
                Step::Number => {}
                Step::String => self.length(u64::from(byte & 0x7f), byte & 0x7f == 0x7f),
                Step::Length(sum, bits) => self.longer(byte, sum, bits),
                Step::Text(left) => {
                    let skipped = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    block = &block[skipped..];
                    match left - skipped as u64 {
                        0 => self.next(),
                        left => self.step = Step::Text(left),
                    }
                    continue;
                }
            }
            block = rest;
        }
    }

    /// The first byte of a field: its kind, and the beginning of a number (RFC 7541, 6.1 to 6.3). A name that is in no
    /// table has the number 0 and a string.
    fn field(&mut self, byte: u8) {
        self.count = self.count.saturating_add(1);
        let (prefix, is_literal) = match byte {
            0x80.. => (0x7f, false),
            0x40.. => (0x3f, true),
            0x20.. => (0x1f, false),
            _ => (0x0f, true),
        };
        let number = byte & prefix;
        self.strings = match (is_literal, number) {
            (false, _) => 0,
            (true, 0) => 2,
            (true, _) => 1,
        };
        match number == prefix {
            true => self.step = Step::Number,
            false => self.next(),
        }
    }

    /// What follows a part of a field.
    fn next(&mut self) {
        self.step = match self.strings {
            0 => Step::Field,
            _ => Step::String,
        };
        self.strings = self.strings.saturating_sub(1);
    }

    fn length(&mut self, length: u64, goes_on: bool) {
        match (goes_on, length) {
            (true, _) => self.step = Step::Length(length, 0),
            (false, 0) => self.next(),
            (false, _) => self.step = Step::Text(length),
        }
    }

    /// h2 rejects a length that no frame can have.
    fn longer(&mut self, byte: u8, sum: u64, bits: u32) {
        let part = u64::from(byte & 0x7f).checked_shl(bits).unwrap_or(u64::MAX >> 1);
        let sum = sum.saturating_add(part);
        self.step = match byte & 0x80 == 0 {
            true => Step::Text(sum),
            false => Step::Length(sum, (bits + 7).min(56)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(block: &[u8]) -> u32 {
        let mut fields = Fields::default();
        fields.take(block);
        fields.count()
    }

    #[test]
    fn every_kind_of_field_counts_once() {
        let long = [&[0x00, 1, b'k', 0x7f, 0x80 | 73, 1][..], &[0xff; 328]].concat();
        for (block, fields) in [
            (&[][..], 0),
            // Indexed, with a number of one byte and of three.
            (&[0x82, 0x86, 0xff, 0x80, 0x01], 3),
            // With a name from the table, and a literal one; the second value is empty.
            (&[0x41, 3, 0x82, 0x82, 0x82, 0x40, 1, 0x82, 0], 2),
            // Never to be indexed, with a name's number of two bytes.
            (&[0x1f, 0x10, 2, 0x82, 0x82, 0x82], 2),
            // The table's size is one, too.
            (&[0x3f, 0xe1, 0x1f, 0x82], 2),
            // A length of three bytes: 127 + 73 + 128.
            (&long, 1),
            (&[&long[..], &[0x82, 0x82]].concat(), 3),
        ] {
            assert_eq!(count(block), fields, "{block:x?}");
        }
    }

    #[test]
    fn a_head_counts_alike_however_it_is_cut() {
        let field = [0x40, 3, b'k', b'e', b'y', 0x7f, 5];
        let block = [&field[..], &[0x82; 132], &[0x82, 0x41, 0, 0x04, 2, 0x82, 0x82]].concat();
        for size in 1..block.len() {
            let mut fields = Fields::default();
            block.chunks(size).for_each(|part| fields.take(part));
            assert_eq!(fields.count(), 4, "in parts of {size}");
        }
    }

    #[test]
    fn what_is_no_number_ends_nothing() {
        let mut fields = Fields::default();
        fields.take(&[0x40, 0x7f]);
        fields.take(&[0xff; 64]);
        fields.take(&[0x7f; 64]);
        assert_eq!(fields.count(), 1);
    }
}
