//! Tests of the whole that need neither root nor namespaces.

mod layers;
mod settings;
mod sizes;
mod source_text;
