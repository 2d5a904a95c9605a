//! The engine against hyper's: what ours takes for a message, hyper takes for the same message, however it comes in pieces. Ours may
//! refuse more. Then nobody between us and an application finds another message in the same bytes.

mod bytes;
mod requests;
mod responses;
mod sides;
