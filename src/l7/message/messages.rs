//! Counts the messages of gRPC as their bytes pass: each is a byte of flags, four of length, and as many bytes as that says
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>), wherever frames of HTTP begin and end.

/// The flags and the length.
const PREFIX: u8 = 5;

/// One direction of a call. Nothing of it is kept, and what comes is not looked into.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::l7) struct Messages {
    count: u64,
    /// How much of the prefix has come.
    prefix: u8,
    /// What the prefix says as far as it has come; after it, how much of the message has not.
    left: u32,
}

impl Messages {
    /// The messages that have begun so far.
    pub(in crate::l7) fn count(&self) -> u64 {
        self.count
    }

    /// More bytes.
    pub(in crate::l7) fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            if self.prefix == PREFIX {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                // No more than `left`, which has 32 bits.
                self.left -= length as u32;
                bytes = &bytes[length..];
                if self.left > 0 {
                    return;
                }
                self.prefix = 0;
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            match self.prefix {
                0 => (self.count, self.left) = (self.count + 1, 0),
                _ => self.left = self.left << 8 | u32::from(*byte),
            }
            self.prefix += 1;
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(lengths: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for length in lengths {
            bytes.push(u8::from(length % 2 == 0));
            bytes.extend(u32::from(*length).to_be_bytes());
            bytes.extend(std::iter::repeat_n(0xff, usize::from(*length)));
        }
        bytes
    }

    #[test]
    fn a_message_counts_when_it_begins() {
        let mut messages = Messages::default();
        messages.pass(&[]);
        assert_eq!(messages.count(), 0);
        messages.pass(&[0]);
        assert_eq!(messages.count(), 1);
        messages.pass(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert_eq!(messages.count(), 1, "it is long");
    }

    proptest! {
        #[test]
        fn frames_make_no_difference(
            lengths in proptest::collection::vec(0u16..300, 0..20),
            cuts in proptest::collection::vec(1usize..40, 1..40),
        ) {
            let bytes = stream(&lengths);
            let (mut messages, mut rest) = (Messages::default(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                messages.pass(part);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(messages.count(), lengths.len() as u64);
        }

        #[test]
        fn never_panics(parts in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let (mut messages, mut whole) = (Messages::default(), Messages::default());
            parts.iter().for_each(|part| messages.pass(part));
            whole.pass(&parts.concat());
            prop_assert_eq!(messages.count(), whole.count());
        }
    }
}
