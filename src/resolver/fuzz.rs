//! Fuzz target of resolver answers.

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};

use super::name::NoAnswer;
use super::{addresses, leads_nowhere};

/// An answer to a question for the addresses of `api.example.com`.
pub fn answer(bytes: &[u8]) {
    let Ok(message) = Message::from_vec(bytes) else { return };
    for kind in [RecordType::A, RecordType::AAAA] {
        let Ok(name) = Name::from_ascii("api.example.com.") else { return };
        let Ok(read) = addresses::read(&message, &Query::query(name, kind)) else { continue };
        assert!(!read.addresses.iter().any(|address| leads_nowhere(*address)), "{message}");
        let merged = addresses::merge([Ok(read), Err(NoAnswer::Mismatch)].into_iter());
        assert!(merged.is_err() || merged.is_ok_and(|it| !it.addresses.is_empty()));
    }
}
