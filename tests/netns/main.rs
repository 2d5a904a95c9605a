//! Tests with real network namespaces.

mod redirect;
