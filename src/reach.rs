//! The one way from a local client to an endpoint: for connections of layer 4, HTTP requests and opaque bytes.
//!
//! The way's last part, from the destination's agent to the application, is [`connect_application`].

mod application;

pub use application::connect_application;
