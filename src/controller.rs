//! placeholder
pub mod events;
pub mod status;
