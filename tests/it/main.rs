//! Tests of the whole that need neither root nor namespaces.

mod layers;
mod sizes;
mod source_text;
