//! Small shared types without I/O: names, identities, ports and marks, reasons. Every room may use this room; it uses
//! none.

mod alike;
mod backoff;
mod bits;
mod burst;
mod driven;
mod fast;
mod heads;
mod identity;
mod names;
mod nearest;
mod note;
mod panics;
pub mod path;
mod places;
pub mod ports;
pub mod reachable;
mod reason;
mod retry_budget;
mod room;
pub mod schema;
mod seldom;
mod sizes;
mod trust_domains;
mod wildcard;
pub mod work;

pub use alike::{alike, is_alike};
pub use backoff::Backoff;
pub use bits::Bits;
pub use burst::Burst;
pub use driven::driven;
pub use fast::FastMap;
pub use heads::{FIELD_BYTES, MAX_FIELDS, UNSEEN_FIELDS};
pub use identity::{Identity, IdentityError};
pub use names::{LabelMap, ObjectKey, Str};
pub use nearest::nearest;
pub use note::{PolicyEffect, PolicyNote};
pub use panics::{caught, panic_text};
pub use places::{Place, Places};
pub use reason::Reason;
pub use retry_budget::{InProgress, LeastRetries, RetryBudget, Spent};
pub use room::{Held, Need, Room, Rooms};
pub use seldom::Seldom;
pub use sizes::within_budget;
pub use trust_domains::TrustDomains;
pub use wildcard::covered;
