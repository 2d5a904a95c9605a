//! What the demo and the tests in network namespaces share. Both include this file by its path; neither
//! uses all of it.

pub mod issuer;
pub mod lab;
